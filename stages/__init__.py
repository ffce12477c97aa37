"""What costs accelerator time: scoring the reference, training the policy, evaluating it."""
