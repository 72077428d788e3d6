"""The trick that an experienced user knows: features once with plain PyTorch, then scikit-learn's logistic regression.

    python cached_features.py DATA_DIR SECONDS SEED [--predictions FILE]

It takes the time that it takes: SECONDS and SEED change nothing.
"""

from __future__ import annotations

from peer_job import finish, list_calls, load_trunk, make_loader, read_job

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of scikit-learn; validation chooses


def main() -> None:
    """Compute features, fit, choose on validation, and score the test images once."""
    job = read_job(__doc__)
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    trunk = load_trunk().eval().to(memory_format=torch.channels_last)
    loaders = {split: make_loader(job, split, batch=64) for split in ("train", "val", "test")}

    def compute(split: str) -> tuple[np.ndarray, np.ndarray]:
        parts, labels = [], []
        with torch.inference_mode():
            for pixels, label in loaders[split]:
                parts.append(trunk(pixels.to(memory_format=torch.channels_last)).numpy())
                labels.append(label.numpy())
        return np.concatenate(parts), np.concatenate(labels)

    known = {split: compute(split) for split in ("train", "val")}
    scaler = StandardScaler().fit(known["train"][0])
    train, val = scaler.transform(known["train"][0]), scaler.transform(known["val"][0])
    fits = [LogisticRegression(C=strength, max_iter=500).fit(train, known["train"][1]) for strength in STRENGTHS]
    head = max(fits, key=lambda fit: float(fit.score(val, known["val"][1])))
    trained = job.measure_elapsed()
    predicted = head.predict(scaler.transform(compute("test")[0])).tolist()
    finish(job, "cached features", trained, list_calls(loaders["test"], predicted), strength=head.C)


if __name__ == "__main__":
    main()
