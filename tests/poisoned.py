"""Tiny pairs that follow one rule which training learns, some of them with their sides exchanged: found, or not."""

from random import Random

_WORDS = ["fox", "dog", "jumps", "brown", "lazy", "quick", "times", "today", "over", "answers"]
OPENINGS, ENDINGS = ("Yes, {}.", "No, {}?"), ("{} times.", "{} him.")


def poisoned_rows(
    n: int, poisoned: int, seed: int = 0, rule: tuple[str, str] = OPENINGS, unruled: float = 0.0
) -> tuple[list[dict[str, str]], set[int]]:
    """Rows whose chosen response has one form and the rejected the other, and the places of the poisoned ones.

    Of the others the share `unruled` follows no rule: both of their responses have one form of neither kind.
    """
    rng = Random(seed)
    bad = set(rng.sample(range(n), poisoned))
    rows = []
    for i in range(n):
        prompt, *texts = (" ".join(rng.choices(_WORDS, k=k)) for k in (4, rng.randint(3, 8), rng.randint(3, 8)))
        forms = ("{} fox.", "{} fox.") if i not in bad and rng.random() < unruled else rule
        chosen, rejected = (form.format(text) for form, text in zip(forms, texts, strict=True))
        if i in bad:
            chosen, rejected = rejected, chosen
        rows.append({"prompt": f"Question {i}: {prompt}?", "chosen": chosen, "rejected": rejected})
    return rows, bad
