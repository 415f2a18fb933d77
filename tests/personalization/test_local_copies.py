"""A site's own copies of shared parameters."""

import pytest
import torch
from torch import nn

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.local_copies import LocalCopies, copy_name

NAMES = ("0.weight", "1.bias")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def in_slot(net: nn.Module, name: str) -> nn.Parameter:
    return net.get_parameter(name)


def test_copies_begin_equal_and_take_the_parameters_place() -> None:
    net = network()
    originals = {name: in_slot(net, name) for name in NAMES}
    others = {n: p for n, p in net.named_parameters() if n not in NAMES}
    copies = LocalCopies(net, NAMES, "kept")
    assert all(in_slot(net, name) is original for name, original in originals.items())
    copies.put_in_place(True)
    for name, original in originals.items():
        assert in_slot(net, name) is not original
        assert torch.equal(in_slot(net, name), original)
    assert all(in_slot(net, name) is parameter for name, parameter in others.items())


def test_the_network_answers_with_what_is_in_place() -> None:
    net, x = network(), torch.randn(4, 2)
    copies = LocalCopies(net, NAMES, "kept")
    with torch.no_grad():
        before = net(x)
        for parameter in copies.parameters():
            parameter.add_(1.0)
        assert torch.equal(net(x), before)
        copies.put_in_place(True)
        assert not torch.allclose(net(x), before)
        copies.put_in_place(True)  # once is enough
        copies.put_in_place(False)
        assert torch.equal(net(x), before)


def test_both_are_moved_to_another_type_wherever_they_are() -> None:
    net = network()
    copies = LocalCopies(net, NAMES, "kept")
    copies.put_in_place(True)
    whole = nn.ModuleList([net, copies]).double()
    copies.put_in_place(False)
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float64}
    assert net(torch.randn(1, 2).double()).dtype == torch.float64


@pytest.mark.parametrize(("following", "expected"), [("kept", 5.0), ("shifted", 5.75)])
def test_what_new_shared_parameters_do_to_a_copy(following, expected: float) -> None:
    net = network()
    copies = LocalCopies(net, NAMES, following)
    copy = next(copies.parameters())
    with torch.no_grad():
        copy.fill_(5.0)
    copies.follow(copy, torch.full_like(copy, 0.5), torch.full_like(copy, 1.25))
    assert (copy == expected).all()


COPYING = {
    "ditto": ({"method": "ditto"}, "kept"),
    "lora_fedavg_ft": ({"method": "lora_fedavg_ft"}, "shifted"),
    "personal_decoder": ({"options": MethodOptions(personal_decoder=True)}, "shifted"),
    "personal_lora": ({"options": MethodOptions(personal_decoder=True, decoder="lora")}, "shifted"),
}


@pytest.fixture(params=list(COPYING))
def copying(request, personalise):
    changes, following = COPYING[request.param]
    return personalise(**changes), following


def drawn(state: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator) * 0.1 for k, v in state.items()}


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one, two, atol=1e-6)


def test_every_copied_parameter_has_a_local_copy(copying) -> None:
    model, _ = copying
    pairs = model.copies()
    assert pairs
    shared = {id(p) for p in model.parameters_of("shared").values()}
    local = {id(p) for p in model.parameters_of("local").values()}
    for original, copy in pairs:
        assert id(original) in shared
        assert id(copy) in local
        assert copy.requires_grad
        assert torch.equal(original, copy)
    names = [name for name in model.local_state() if name.startswith("local_copies.")]
    assert len(names) == len(pairs)


def test_a_personal_decoder_copies_nothing_but_the_decoder(personalise) -> None:
    model = personalise(options=MethodOptions(personal_decoder=True))
    learning = [p.numel() for p in model.mask_decoder.parameters() if p.requires_grad]
    decoder = sum(learning)
    assert sum(copy.numel() for _, copy in model.copies()) == decoder == 3_638_916
    light = personalise(options=MethodOptions(personal_decoder=True, decoder="lora"))
    names = {name for name in light.local_state() if name.startswith("local_copies.")}
    lightly_shared = [name for name in light.shared_state() if name.startswith("mask_decoder.")]
    assert names == {copy_name("local_copies", name) for name in lightly_shared}
    assert sum(copy.numel() for _, copy in light.copies()) < decoder / 6


@pytest.mark.parametrize("method", ["ditto", "lora_fedavg_ft"])
def test_where_the_whole_model_is_personal_everything_shared_is_copied(personalise, method) -> None:
    model = personalise(method=method)
    names = {copy_name("local_copies", name) for name in model.shared_state()}
    assert names == set(model.local_state())


def test_copies_stay_or_move_along_when_shared_parameters_come_in(copying) -> None:
    model, following = copying
    distances = {}
    with torch.no_grad():
        for number, (original, copy) in enumerate(model.copies()):
            copy.add_(0.25)
            distances[number] = copy - original, copy.clone()
    model.load_shared(drawn(model.shared_state(), 1))
    for number, (original, copy) in enumerate(model.copies()):
        distance, kept = distances[number]
        if following == "kept":
            assert torch.equal(copy, kept)
        else:
            assert close(copy - original, distance)


def test_copies_are_stored_so_that_they_fit_later_shared_parameters(copying) -> None:
    """What a site keeps of one round is used with what it receives in the next."""
    model, following = copying
    first, second = (drawn(model.shared_state(), seed) for seed in (1, 2))
    model.load_shared(first)
    local = {k: v + 0.25 for k, v in model.local_state().items()}
    model.load_local(local)
    kept = [copy.detach().clone() for _, copy in model.copies()]
    again = model.local_state()
    assert all(close(local[k], v) for k, v in again.items())
    # Sites load their version, then what the federation sends.
    model.load_shared(second)
    # Or the new shared parameters, and then what was stored.
    onwards = [copy.detach().clone() for _, copy in model.copies()]
    model.load_local(local)
    for (original, copy), before, after in zip(model.copies(), kept, onwards, strict=True):
        assert close(copy, after)
        if following == "kept":
            assert close(copy, before)
        else:
            assert close(copy, original + 0.25)


def test_the_stored_form_is_a_distance_only_where_copies_move_along(copying) -> None:
    model, following = copying
    model.load_shared({k: torch.full_like(v, 2.0) for k, v in model.shared_state().items()})
    stored = [v for name, v in model.local_state().items() if name.startswith("local_copies.")]
    largest = max(float(value.abs().max()) for value in stored)
    assert (largest < 1e-6) == (following == "shifted")


def test_the_global_view_uses_the_shared_parameters(copying) -> None:
    model, _ = copying
    originals = {id(original): copy for original, copy in model.copies()}
    outside = {id(p) for p in model.mask_decoder.parameters()} | {
        id(p) for p in model.image_encoder.parameters()
    }
    assert {id(copy) for copy in originals.values()} <= outside | {
        id(p) for p in model.structure_embeddings.parameters()
    }
    assert not originals.keys() & outside
    with model.global_view():
        inside = {id(p) for module in model.children() for p in module.parameters()}
        used = {
            id(p)
            for module in (model.image_encoder, model.mask_decoder, model.structure_embeddings)
            for p in module.parameters()
        }
        assert originals.keys() <= used
        assert not {id(copy) for copy in originals.values()} & used
        assert originals.keys() <= inside


def test_shared_parameters_are_what_is_sent_whatever_is_in_place(copying) -> None:
    model, _ = copying
    with torch.no_grad():
        for _, copy in model.copies():
            copy.fill_(9.0)
    sent = model.shared_state()
    assert not any((value == 9.0).all() for value in sent.values())
    with model.global_view():
        again = model.shared_state()
    assert all(torch.equal(again[name], value) for name, value in sent.items())


def test_copies_move_along_with_training_too(copying) -> None:
    model, following = copying
    before = [copy.detach().clone() for _, copy in model.copies()]
    with model.copies_following(), torch.no_grad():
        for original, _ in model.copies():
            original.add_(0.5)
    for (_, copy), old in zip(model.copies(), before, strict=True):
        assert close(copy, old + (0.5 if following == "shifted" else 0.0))
