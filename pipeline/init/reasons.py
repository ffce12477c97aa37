"""Keys of other trainers that have no counterpart here: why that does not matter, or what to do instead."""

_BY_REASON = {
    "every step is in metrics.jsonl, whatever is shown": """
        logging_steps logging_first_step logging_strategy logging_dir log_level log_level_replica log_on_each_node
        logging_nan_inf_filter disable_tqdm plot_loss include_num_input_tokens_seen include_tokens_per_second
        include_tkps print_param_status include_for_metrics swanlab_project swanlab_run_name use_swanlab""",
    "batches are made by tokens: scoring.pack_tokens is the most in one pass": """
        per_device_eval_batch_size eval_batch_size precompute_ref_batch_size auto_find_batch_size group_by_length
        length_column_name train_sampling_strategy pad_to_multiple_of pad_to_sequence_len padding_free dpo_padding_free
        sample_packing eval_sample_packing sample_packing_bin_size sample_packing_group_size packing neat_packing
        multipack_real_batches batch_flattening eval_accumulation_steps preprocessing_batch_size""",
    "the reference is always scored beforehand, by pipeline precompute-ref": "precompute_ref_log_probs",
    "scoring.backend: auto chooses how attention is computed, and says how": """
        attn_implementation flash_attn flash_attention sdp_attention xformers_attention flex_attention eager_attention
        sage_attention flash_optimum flash_attn_cross_entropy flash_attn_fuse_mlp shift_attn s2_attention""",
    "prompts are never cut: of a pair longer than data.max_length the responses lose their ends": """
        max_prompt_length max_prompt_len max_completion_length max_target_length truncation_mode excess_length_strategy
        eval_sequence_len min_sample_len label_pad_token_id""",
    "dropout is off in all jobs": "disable_dropout lora_dropout module_dropout",
    "the tokenizer's own chat template is used; for another one edit it in a local copy of the model": """
        chat_template template chat_template_path chat_template_jinja chat_template_kwargs default_system tool_format
        default_system_message tokenizer_name_or_path tokenizer_type tokenizer_config tokenizer_use_fast
        use_fast_tokenizer special_tokens tokens add_tokens add_special_tokens eos_token pad_token resize_vocab
        resize_token_embeddings_to_32x eot_tokens enable_thinking split_special_tokens added_tokens_overrides""",
    "code that comes with a model is never run; only architectures of transformers are read": "trust_remote_code",
    "AdamW's betas are 0.9 and 0.999, its epsilon is 1e-8": """
        adam_beta1 adam_beta2 adam_epsilon optim_args adam_beta3 adam_epsilon2""",
    "pipeline eval is a job of its own; for looks during training set data.dev_fraction and train.eval_every": """
        eval_strategy evaluation_strategy eval_steps evals_per_epoch do_eval do_predict eval_on_start eval_delay
        eval_on_each_dataset prediction_loss_only generate_during_eval eval_table_size do_causal_lm_eval
        compute_accuracy predict_with_generate""",
    "the policy is that of the last step; for the best one set train.eval_every and train.metric_for_best_model": """
        load_best_model_at_end metric_for_best_model greater_is_better early_stopping_patience early_stopping_steps""",
    "there is a checkpoint every train.checkpoint_every steps, and one at the end": """
        save_strategy saves_per_epoch save_only_model save_first_step save_safetensors save_on_each_node""",
    "a run that was interrupted goes on by itself, and a finished one is kept": """
        resume_from_checkpoint auto_resume_from_checkpoints overwrite_output_dir ignore_data_skip""",
    "nothing is uploaded: the policy is in latest/policy of the work folder": """
        push_to_hub hub_model_id hub_strategy hub_token hub_private_repo hub_always_push hub_revision hf_use_auth_token
        push_dataset_to_hub hf_hub_token ms_hub_token""",
    "the number of steps follows from pairs and train.epochs; for fewer make a smaller file of rows": """
        max_steps max_samples max_train_samples max_eval_samples dataset_shard_num dataset_shard_idx""",
    "pairs are made once, kept in the work folder and read from disk": """
        overwrite_cache dataset_prepared_path tokenized_path cache_dir dataset_streaming streaming buffer_size
        dataset_keep_in_memory data_shared_file_system""",
    "torchrun starts several processes; where the model does not fit into one device set train.fsdp: true": """
        deepspeed accelerate_config fsdp_config fsdp_version ddp ddp_find_unused_parameters ddp_bucket_cap_mb
        ddp_backend ddp_broadcast_buffers device_map local_rank world_size accelerator_config low_cpu_mem_usage
        ray_num_workers ray_run_name ray_storage_path resources_per_worker placement_strategy""",
    "another way to compute the same, which has no effect on what is learnt": """
        use_liger_kernel enable_liger_kernel liger_kernel_config dpo_use_liger_kernel torch_compile use_unsloth
        torch_compile_backend torch_compile_mode tf32 dataloader_num_workers dataloader_pin_memory
        dataloader_prefetch_factor dataloader_drop_last dataloader_persistent_workers use_unsloth_gc use_cache
        gradient_checkpointing_kwargs activation_offloading torch_empty_cache_steps lora_mlp_kernel lora_qkv_kernel
        lora_o_kernel use_reentrant_gc upcast_layernorm use_logits_to_keep layer_offloading dpo_use_logits_to_keep""",
    "read where it is needed, and nowhere else": "remove_unused_columns label_names ignore_pad_token_for_loss",
    "each command is its own job": "do_train infer_backend infer_dtype adapter_folder",
    "only responses are scored": "train_on_inputs train_on_prompt mask_history",
    "duplicates are counted by pipeline validate": "dataset_exact_deduplication",
    "read with transformers' own class": "model_type base_model_config is_llama_derived_model is_mistral_derived_model",
    "the order of pairs follows from train.seed": """
        data_seed disable_shuffling shuffle_merged_datasets shuffle_before_merging_datasets""",
    "mixtures: give each entry of data.train a weight, visits an epoch of each of its pairs": """
        mix_strategy interleave_probs""",
    "adapters are plain LoRA": "use_dora peft_use_dora pissa_init pissa_iter use_oft lora_fan_in_fan_out",
    "only linear layers get an adapter; others stay as they are": """
        lora_modules_to_save additional_target lora_target_parameters lora_task_type peft_layers_to_transform""",
    "quantisation is bitsandbytes' nf4 (scales quantised again) or int8": """
        bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage quantization_method quantization_type
        double_quantization bnb_4bit_use_double_quant bnb_4bit_compute_dtype quantization_device_map""",
    "train.report_to names trackers; theirs take their own settings from the environment": """
        wandb_entity wandb_watch wandb_name wandb_run_id wandb_log_model wandb_mode project
        trackio_space_id trackio_bucket_id trackio_static_space_id
        trackio_run_name trackio_project_name mlflow_tracking_uri mlflow_experiment_name use_mlflow
        mlflow_run_name use_comet comet_project_name comet_workspace""",
    "the reference stays as it is while a policy trains (no TR-DPO)": """
        sync_ref_model ref_model_mixup_alpha ref_model_sync_steps""",
    "the auxiliary loss of mixtures of experts is not part of the objective": "router_aux_loss_coef moe_aux_loss_coef",
    "noise on embeddings is not supported": "neftune_noise_alpha noisy_embedding_alpha",
    "the schedule's own form is fixed: linear or cosine to 0, or constant": """
        lr_scheduler_kwargs cosine_min_lr_ratio cosine_constant_lr_ratio""",
    "the optimiser is AdamW, with 32-bit or 8-bit moments (train.optim)": """
        use_galore use_apollo use_badam use_adam_mini use_muon optim_target_modules relora torchdistx_path""",
    "give its revision and dtype as reference.revision and reference.dtype": "model_init_kwargs",
    "smooths tokens of supervised training; that of preferences is train.label_smoothing": "label_smoothing_factor",
    "the device is chosen: a GPU where there is one": "use_cpu device",
    "a model is read as its config.json says; to change that, change the file in a local copy": """
        rope_scaling overrides_of_model_config overrides_of_model_kwargs""",
    "a sequence is always on one device": """
        context_parallel_size sequence_parallel_degree tensor_parallel_size dp_shard_size dp_replicate_size
        parallelism_config""",
    "other code is not loaded": "plugins trainer_cls ignore_bias_buffers",
    "all layers are trained, or an adapter beside each": """
        freeze_trainable_layers freeze_trainable_modules freeze_extra_modules unfrozen_parameters""",
    "only texts are read": """
        media_dir image_max_pixels image_min_pixels video_max_pixels video_min_pixels freeze_vision_tower
        freeze_multi_modal_projector freeze_language_model processor_type""",
    "every parameter has the same learning rate": "loraplus_lr_ratio loraplus_lr_embedding embedding_lr lr_groups",
}  # fmt: skip
REASONS = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}
