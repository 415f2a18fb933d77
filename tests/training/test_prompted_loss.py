"""The loss of a batch, and the prompts that it is asked with."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_fedsam.personalization import MethodOptions, PromptShares
from napari_fedsam.sam.decoding import decode
from napari_fedsam.training.batches import Batches
from napari_fedsam.training.feature_cache import PlainEncoder
from napari_fedsam.training.losses import distillation_loss, score_loss, segmentation_loss
from napari_fedsam.training.prompted_loss import Answer, PromptedLoss

NONE = PromptShares(none=1.0, box=0.0, click=0.0)
BOXES = PromptShares(none=0.25, box=0.75, click=0.0)
CLICKS = PromptShares(none=0.25, box=0.0, click=0.75)


@pytest.fixture
def make(small, samples, absent):
    """Build a model with its loss and one batch of two images with, one without the structure."""

    def build(*, cases=None, seed: int = 0, **changes):
        model = small(**changes)
        encoder = PlainEncoder(model)
        batches = Batches(
            cases or [*samples, absent], encoder, seed=0, augmentations=0, box_jitter=0.0
        )
        loss = PromptedLoss(model, encoder, np.random.default_rng(seed))
        batch = batches._batch(range(len(batches)))
        return model, loss, batch

    return build


def by_hand(model, batch, *, points=None, boxes=None, logits=None) -> Answer:
    embeddings = model.image_encoder(batch.features)[batch.image_of]
    return Answer(
        *decode(
            model, embeddings, points=points, boxes=boxes, logits=logits, structure=batch.structures
        )
    )


def error(answer: Answer, targets: torch.Tensor) -> torch.Tensor:
    return segmentation_loss(answer.logits, targets) + score_loss(
        answer.scores, answer.logits, targets
    )


def test_without_prompts_it_is_the_proposals_error(make) -> None:
    model, loss, batch = make(method="lora_fedavg", prompts=NONE)
    with torch.no_grad():
        expected = error(by_hand(model, batch), batch.targets)
        torch.testing.assert_close(loss(batch, distils=False), expected)


def test_boxes_are_weighed_in_where_the_structure_is_there(make) -> None:
    model, loss, batch = make(method="lora_fedavg", prompts=BOXES)
    there = batch.present
    assert there.sum() == 2
    with torch.no_grad():
        proposal, boxed = by_hand(model, batch), by_hand(model, batch, boxes=batch.boxes)
        expected = 0.25 * error(proposal, batch.targets) + 0.75 * error(
            Answer(boxed.logits[there], boxed.scores[there]), batch.targets[there]
        )
        torch.testing.assert_close(loss(batch, distils=False), expected)


def test_where_nothing_is_there_no_prompt_is_asked(make, absent) -> None:
    model, loss, batch = make(method="lora_fedavg", prompts=CLICKS, cases=[absent])
    with torch.no_grad():
        proposal = by_hand(model, batch)
        assert loss._prompts(batch, proposal) is None
        expected = 0.25 * error(proposal, batch.targets)
        torch.testing.assert_close(loss(batch, distils=False), expected)


def kinds(loss: PromptedLoss, batch, count: int) -> Counter:
    proposal = Answer(torch.full_like(batch.targets, -1.0), torch.zeros(len(batch.targets), 1))
    drawn: Counter = Counter()
    for _ in range(count):
        prompts = loss._prompts(batch, proposal)
        if prompts is None:
            drawn["none"] += 1
        elif prompts.boxes is not None:
            assert prompts.points is None
            assert torch.equal(prompts.boxes, batch.boxes)
            drawn["box"] += 1
        else:
            assert prompts.points is not None
            places, labels = prompts.points
            assert places.shape == (*labels.shape, 2)
            drawn["corrects" if prompts.logits is not None else "begins"] += 1
            drawn[f"{labels.shape[1]} clicks"] += 1
    return drawn


def test_boxes_and_clicks_come_as_often_as_the_recipe_says(make) -> None:
    _, loss, batch = make(prompts=PromptShares(none=0.6, box=0.3, click=0.1))
    drawn = kinds(loss, batch, 200)
    assert drawn["box"] == pytest.approx(150, abs=20)
    _, loss, batch = make(prompts=BOXES)
    assert kinds(loss, batch, 20) == {"box": 20}
    _, loss, batch = make(prompts=NONE)
    assert kinds(loss, batch, 20) == {"none": 20}


def test_one_to_three_clicks_with_and_without_a_mask_to_correct(make) -> None:
    _, loss, batch = make(prompts=CLICKS)
    drawn = kinds(loss, batch, 120)
    assert drawn["corrects"] + drawn["begins"] == 120
    assert drawn["corrects"] == pytest.approx(60, abs=20)
    assert all(drawn[f"{number} clicks"] > 20 for number in (1, 2, 3))


def clicked(points, batch):
    """Return for every click the mask's index, the low-resolution pixel below it, its label."""
    places, labels = points
    pixels = ((places + 0.5) / (256 / 256) - 0.5).round().long()
    for index in range(len(batch.targets)):
        for (x, y), label in zip(pixels[index].tolist(), labels[index].tolist(), strict=True):
            yield index, x, y, label


def test_clicks_of_a_beginning_lie_in_the_structure(make) -> None:
    _, loss, batch = make(prompts=CLICKS)
    points = loss._clicks(batch, torch.zeros_like(batch.targets).bool(), 3)
    seen = 0
    for index, x, y, label in clicked(points, batch):
        if batch.present[index]:
            assert batch.targets[index, 0, y, x] == 1
            assert label == 1
            seen += 1
    assert seen == 6


def test_clicks_of_a_correction_lie_where_the_proposal_is_wrong(make) -> None:
    _, loss, batch = make(prompts=CLICKS)
    right_half = torch.zeros_like(batch.targets).bool()
    right_half[..., 100:] = True
    labels = set()
    for _ in range(8):
        for index, x, y, label in clicked(loss._clicks(batch, right_half, 3), batch):
            if batch.present[index]:
                truth = bool(batch.targets[index, 0, y, x])
                assert truth != bool(right_half[index, 0, y, x])
                assert truth == bool(label)
                labels.add(label)
    assert labels == {0, 1}


def test_nobody_clicks_beside_the_image(make, samples) -> None:
    """Images of 48 x 64 pixels fill three quarters of the padded square."""
    _, loss, batch = make(prompts=CLICKS, cases=samples)
    assert batch.extents == [(192, 256)] * 2
    everything = torch.ones_like(batch.targets).bool()
    rows = [
        y for _ in range(40) for _, _, y, _ in clicked(loss._clicks(batch, everything, 3), batch)
    ]
    assert 150 < max(rows) < 192


def test_the_mask_to_correct_is_the_proposal(make) -> None:
    _, loss, batch = make(prompts=CLICKS)
    proposal = Answer(torch.randn_like(batch.targets).requires_grad_(), torch.zeros(3, 1))
    corrections = [
        p
        for p in (loss._prompts(batch, proposal) for _ in range(10))
        if p is not None and p.logits is not None
    ]
    assert corrections
    for prompts in corrections:
        assert torch.equal(prompts.logits, proposal.logits)
        assert not prompts.logits.requires_grad


def test_the_balance_of_experts_is_weighed_in(make) -> None:
    values = []
    for weight in (0.0, 0.5):
        model, loss, batch = make(prompts=NONE, options=MethodOptions(load_balance=weight))
        values.append(float(loss(batch, distils=False).detach()))
        imbalance = float(model.expert_imbalance().detach())
    assert imbalance > 0
    assert values[1] - values[0] == pytest.approx(0.5 * imbalance, rel=1e-3)


def test_the_global_model_has_no_experts_to_balance(make) -> None:
    values = []
    for weight in (0.0, 5.0):
        model, loss, batch = make(prompts=NONE, options=MethodOptions(load_balance=weight))
        with model.global_view():
            values.append(float(loss(batch, distils=False).detach()))
    assert values[0] == values[1]


def test_the_global_model_teaches_every_answer(make) -> None:
    options = MethodOptions(distillation=2.0, temperature=3.0, load_balance=0.0)
    model, loss, batch = make(prompts=BOXES, options=options)
    with torch.no_grad():
        for name, parameter in model.parameters_of("local").items():
            if name.endswith("experts.up"):
                parameter.add_(0.1)
        plain = loss(batch, distils=False)
        taught = loss(batch, distils=True)
        answers = by_hand(model, batch), by_hand(model, batch, boxes=batch.boxes)
        with model.global_view():
            teachers = by_hand(model, batch), by_hand(model, batch, boxes=batch.boxes)
        # A box around what is not there says nothing.
        which = (slice(None), batch.present)
        distances = [
            distillation_loss(answer.logits[these], teacher.logits[these], 3.0)
            for answer, teacher, these in zip(answers, teachers, which, strict=True)
        ]
    assert distances[0] > 0
    assert not batch.present.all()
    torch.testing.assert_close(
        taught - plain, 2.0 * (0.25 * distances[0] + 0.75 * distances[1]), rtol=1e-3, atol=1e-5
    )


def test_equals_have_nothing_to_teach_each_other(make) -> None:
    # At step 0 the experts answer nothing.
    _, loss, batch = make(prompts=BOXES, options=MethodOptions(distillation=50.0))
    with torch.no_grad():
        taught, plain = (loss(batch, distils=distils) for distils in (True, False))
    torch.testing.assert_close(taught, plain, rtol=1e-4, atol=1e-5)


def test_teaching_leaves_the_student_in_place(make) -> None:
    model, loss, batch = make(prompts=NONE, options=MethodOptions(personal_decoder=True))
    decoder = [id(p) for p in model.mask_decoder.parameters()]
    loss(batch, distils=True).backward()
    assert [id(p) for p in model.mask_decoder.parameters()] == decoder
    shared = {id(original) for original, _ in model.copies()}
    grads = {id(p) for p in model.parameters() if p.grad is not None}
    # The teacher, whose parameters these are, learns nothing.
    assert not shared & grads


def test_siblings_share_one_embedding(make, samples) -> None:
    half = samples[0].mask.copy()
    half[:, 20:] = False
    pair = [samples[0], replace(samples[0], id="half", mask=half, structure=7)]
    model, loss, batch = make(method="lora_fedavg", prompts=NONE, cases=pair)
    assert len(batch.features) == 1
    assert batch.image_of.tolist() == [0, 0]
    with torch.no_grad():
        expected = error(by_hand(model, batch), batch.targets)
        torch.testing.assert_close(loss(batch, distils=False), expected)


def test_several_images_are_answered_as_each_one_alone(make) -> None:
    model, _, batch = make(method="lora_fedavg")
    with torch.no_grad():
        together = by_hand(model, batch, boxes=batch.boxes)
        embeddings = model.image_encoder(batch.features)
        for index, structure in enumerate(batch.structures):
            logits, scores = decode(
                model,
                embeddings[index : index + 1],
                boxes=batch.boxes[index : index + 1],
                structure=structure,
            )
            torch.testing.assert_close(together.logits[index], logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.scores[index], scores[0], atol=1e-4, rtol=1e-4)
