"""The official ViT-B layout, from a randomly initialised checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling.image_encoder import ImageEncoderViT

from napari_fedsam.sam import Predictor, Prompts, load_model, registry
from napari_fedsam.sam.segment_anything_models import SegmentAnything

SHAPE = (96, 128)


@pytest.fixture(scope="module")
def official():
    """segment-anything's own ViT-B with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = sam_model_registry["vit_b"]()
        with torch.no_grad():
            # All zeros at the start: a mix-up of positions must not go unnoticed.
            model.image_encoder.pos_embed.normal_(std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "random_vit_b.pth"
    # The published files hold these two besides the weights.
    state = official.state_dict() | {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
    }
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> SegmentAnything:
    model = load_model(checkpoint)
    assert isinstance(model, SegmentAnything)
    return model


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = (columns - 50) ** 2 + (rows - 40) ** 2 < 400
    grey = np.where(disc, 190, 60).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], axis=-1)


@pytest.fixture(scope="module")
def both(official, loaded: SegmentAnything, image: np.ndarray):
    """The two predictors on one image; the encoder, slow on a CPU, runs once for both."""
    embedding = Predictor(loaded).encode(image)
    seen: list[torch.Tensor] = []

    class Recorded(torch.nn.Module):
        img_size = official.image_encoder.img_size

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(pixels)
            return embedding.features

    encoder, official.image_encoder = official.image_encoder, Recorded()
    theirs = SamPredictor(official)
    theirs.set_image(image)
    official.image_encoder = encoder
    return Predictor(loaded, bf16=False), embedding, theirs, seen[0]


def test_a_vit_b_file_is_recognised_and_has_every_weight(loaded, official) -> None:
    assert loaded.name == "random_vit_b"
    assert loaded.input_size == 1024
    assert loaded.prompt_kinds == {"point", "box"}
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    ours, theirs = loaded.state_dict(), official.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_encoder_sees_what_sam_predictor_shows_it(both, loaded, image) -> None:
    theirs = both[3]
    # SamPredictor rounds the resized image to whole grey values.
    torch.testing.assert_close(loaded.preprocess(image), theirs, atol=1.5 / 57, rtol=0)


@pytest.mark.parametrize("kind", ["box", "click", "clicks", "box_and_click"])
def test_masks_equal_those_of_sam_predictor(both, kind: str) -> None:
    ours, embedding, theirs, _ = both
    points = np.array([[50, 40], [100, 80]], np.float32)[: 1 if kind != "clicks" else 2]
    labels = np.array([True, False])[: len(points)]
    box = (30, 20, 71, 60.5) if kind.startswith("box") else None
    prompts = Prompts(box=box) if kind == "box" else Prompts(points, labels, box)
    answer = ours.predict(embedding, prompts)
    masks, scores, logits = theirs.predict(
        point_coords=None if kind == "box" else points,
        point_labels=None if kind == "box" else labels.astype(int),
        box=None if box is None else np.array(box),
        multimask_output=False,
    )
    np.testing.assert_allclose(answer.low_res_logits, logits[0], atol=1e-4, rtol=1e-4)
    assert answer.score == pytest.approx(scores[0], abs=1e-4)
    assert (answer.mask != masks[0]).mean() < 1e-3


def test_an_earlier_answer_is_a_mask_prompt_as_in_sam_predictor(both) -> None:
    ours, embedding, theirs, _ = both
    first = ours.predict(embedding, Prompts(box=(30, 20, 71, 60)))
    point, label = np.array([[50, 40]], np.float32), np.array([True])
    answer = ours.predict(embedding, Prompts(point, label), previous=first)
    _, _, logits = theirs.predict(
        point, label.astype(int), mask_input=first.low_res_logits[None], multimask_output=False
    )
    np.testing.assert_allclose(answer.low_res_logits, logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trainable", ["patch_embed", "neck"])
def test_the_stages_in_a_chain_are_the_encoder(trainable: str) -> None:
    small = ImageEncoderViT(
        img_size=64, depth=2, embed_dim=48, num_heads=3, out_chans=16, window_size=3,
        use_rel_pos=True, global_attn_indexes=(1,),
    )  # fmt: skip
    small.requires_grad_(False)
    small.pos_embed.normal_()
    getattr(small, trainable).requires_grad_(True)
    with torch.device("meta"):
        model = SegmentAnything("vit_b", "small")
    model.image_encoder = small
    stages = model.encoder_stages()
    assert len(stages) == 4
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x = pixels
    for stage in stages:
        x = stage(x)
    assert torch.equal(x, small(pixels))
    # A stage must show what is trainable in it, or training would skip it unnoticed.
    seen = [any(p.requires_grad for p in stage.parameters()) for stage in stages]
    assert seen == [trainable == "patch_embed", False, False, trainable == "neck"]


def test_medsam_is_recognised_by_its_file_name(checkpoint: Path) -> None:
    state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}
    assert registry._recognise(state, Path("medsam_vit_b.pth")) == "medsam_vit_b"
    assert registry._recognise(state, checkpoint) == "vit_b"
    medsam = SegmentAnything("vit_b", "medsam", medsam=True)
    assert medsam.prompt_kinds == {"box"}
    assert medsam.preprocess(np.arange(100, dtype=np.uint8).reshape(10, 10)).max() == 1.0


@pytest.mark.parametrize(("width", "size"), [(768, "vit_b"), (1024, "vit_l"), (1280, "vit_h")])
def test_vit_sizes_are_told_by_their_width(width: int, size: str) -> None:
    state = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, width)}
    assert registry._recognise(state, Path("a.pth")) == size
