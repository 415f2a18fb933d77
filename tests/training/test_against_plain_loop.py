"""Cached and fused, training takes the same steps as a loop without any of that."""

import pytest
import torch

from napari_fedsam.personalization import PromptShares
from napari_fedsam.personalization.methods import Phase
from napari_fedsam.sam import encoder_split
from napari_fedsam.sam.decoding import decode
from napari_fedsam.training.batches import Batches
from napari_fedsam.training.feature_cache import FeatureCache, PlainEncoder
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.losses import score_loss, segmentation_loss
from napari_fedsam.training.schedule import Stretch

CHANGES = {
    "method": "lora_fedavg",
    "batch_size": 1,
    "augmentations": 1,
    "prompts": PromptShares(none=0.5, box=0.5, click=0.0),
}


def plain_loop(model, samples, steps: int) -> list[float]:
    """Run the whole encoder in float32 at every step and write out the loss and the optimiser."""
    training = model.recipe.training
    drawn = Batches(samples, PlainEncoder(model), seed=(0, 1, 0), augmentations=1, box_jitter=0.1)
    shared = model.parameters_of("shared")
    parameters = list(shared.values())
    of_the_base = [shared[name] for name in shared if name.startswith("mask_decoder")]
    inserted = [shared[name] for name in shared if not name.startswith("mask_decoder")]
    # Fused as in training: AdamW's first steps have the gradients' signs, of which rounding turns
    # some around.
    optimizer = torch.optim.AdamW(
        [{"params": of_the_base, "times": 1}, {"params": inserted, "times": 4}], fused=True
    )
    stretch = Stretch(Phase("shared"), steps, training.learning_rate)
    losses = []
    for step in range(steps):
        batch = drawn.draw(training.batch_size)
        drawn.random.random()  # boxes or clicks: always boxes here
        embeddings = model.image_encoder(batch.features)[batch.image_of]
        loss = torch.zeros(())
        for boxes in (None, batch.boxes):
            logits, scores = decode(model, embeddings, boxes=boxes, structure=batch.structures)
            error = segmentation_loss(logits, batch.targets)
            loss = loss + 0.5 * (error + score_loss(scores, logits, batch.targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["times"] * stretch.rate(step)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", ["small", "lite_medsam"])
def test_losses_are_those_of_a_plain_loop(
    small, personalise, samples, monkeypatch, kind: str
) -> None:
    if kind == "lite_medsam":
        # Noise is far from what its weights know: the products' rounding alone, not the trainer,
        # would move its losses by more. Cached features are bfloat16 all the same.
        monkeypatch.setattr(encoder_split, "has_fast_bf16", lambda _: False)
    build = {"small": small, "lite_medsam": personalise}[kind]
    steps = 10 if kind == "small" else 8
    fast = local_update(
        build(**CHANGES, epochs=steps / 2), samples, seed=0, cache=FeatureCache()
    ).losses
    plain = plain_loop(build(**CHANGES), samples, steps)
    assert len(fast) == steps
    # They fall to a tenth of the first one, of which half a percent is allowed there.
    assert fast == pytest.approx(plain, rel=0.02, abs=0.005 * plain[0])
    # They differ from step to step, so that another order would be seen.
    assert max(plain) > 1.1 * min(plain)
