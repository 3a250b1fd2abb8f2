"""The network in what a training program saved: under which keys, behind which prefix.

The programs of DeiT and PiT, timm, Lightning, Accelerate and PyTorch's tutorials put the state
dict under a key, wrappers (DataParallel, torch.compile, a module of one's own) put a prefix before
its names, and averaged weights may stand beside the raw ones. A network is where its first tensors
are found.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pit_keras.weights.checkpoint_files import as_mapping

# Names that show where a detector, or another network, begins.
_DETECTORS = re.compile(r"(|.*\.)(?:query_embed\.weight|class_embed\.bias)")
_NETWORKS = re.compile(
    r"(|.*\.)(?:cls_token|patch_embed\.(?:conv|proj)\.weight|layer1\.0\.conv1\.weight"
    r"|s1\.b1\.conv1\.conv\.weight)"
)
_HEADS = re.compile(r"(|.*\.)((?:head|head_dist|fc|head\.fc)\.(?:weight|bias))")
# torch.compile, FSDP and gradient checkpointing name their wrapper wherever it is.
_INNER_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?<![a-z])(?:ema|swa|averaged?|shadow|teacher)(?![a-z])")
_OTHERS = re.compile(r"optim|sched|scaler")  # keys of what may be named like a network's tensors
_COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel
_DEPTH = 4  # of mappings in mappings


class Network(NamedTuple):
    """The tensors of a network by their plain names."""

    place: str  # the keys and the prefix, such as "state_dict: module."
    tensors: Mapping
    left_out: tuple[str, ...] = ()  # names of the tensors beside it

    @property
    def is_averaged(self):
        return bool(_AVERAGED.search(self.place.lower()))


def network_in(content, source, averaged=True):
    """The tensors by name of the network in a checkpoint, and in words what was passed over.

    Args:
        source: The checkpoint's name in messages.
        averaged: Whether averaged weights are preferred to the raw ones beside them.
    """
    found = list(_networks(as_mapping(content)))
    if not found:
        found = sorted(_state_dicts(as_mapping(content)), key=lambda each: -len(each.tensors))[:1]
    if not found:
        raise ValueError(f"{source} is not a state dict, a mapping from names to tensors.")
    of_average = [network for network in found if network.is_averaged]
    raw = _different([network for network in found if not network.is_averaged])
    if not raw and not averaged:
        raise ValueError(
            f"{source} holds no raw weights, only averaged ones ({of_average[0].place})."
        )
    shapes, unlike = [_shapes(network) for network in raw], []
    if raw:  # a teacher of another architecture is no average
        unlike = [network for network in of_average if _shapes(network) not in shapes]
        of_average = [network for network in of_average if network not in unlike]
    wanted, others = (of_average, raw) if of_average and averaged else (raw, of_average)
    if len(wanted) > 1:
        places = ", ".join(repr(network.place) for network in wanted)
        raise ValueError(
            f"{source} holds several networks, {places}; save the state dict of one of them in a "
            "file of its own."
        )
    return wanted[0].tensors, _passed_over(wanted[0], others, unlike)


def _different(networks):
    """Without those that repeat the first one under another key."""
    return networks[:1] + [each for each in networks[1:] if not _same(each, networks[0])]


def _same(network, other):
    return _shapes(network) == _shapes(other) and all(
        bool((tensor == other.tensors[name]).all()) for name, tensor in network.tensors.items()
    )


def _passed_over(network, others, unlike):
    """A sentence's part on what was taken and what was not, or None."""
    parts = []
    if others:
        kinds = ("averaged", "raw") if network.is_averaged else ("raw", "averaged")
        parts.append(
            f"the {kinds[0]} weights {network.place!r} are taken, not the {kinds[1]} ones "
            f"{others[0].place!r}, which averaged={not network.is_averaged} takes (pit-keras "
            f"convert: {'--raw' if network.is_averaged else 'without --raw'})"
        )
    if unlike:
        parts.append(f"{unlike[0].place!r} has other tensors and is left out")
    if network.left_out:
        names, more = ", ".join(network.left_out[:3]), ", ..." * (len(network.left_out) > 3)
        parts.append(f"left out beside {network.place!r}: {names}{more}")
    return "; ".join(parts) or None


def _shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.tensors.items()}


def _networks(content, keys=(), depth=0):
    """All networks in a mapping and in the mappings in it."""
    tensors = _tensors(content)
    for pattern in (_DETECTORS, _NETWORKS):
        matches = filter(None, map(pattern.fullmatch, tensors))
        prefixes = sorted({match[1] for match in matches})
        for prefix in prefixes:
            yield _network(tensors, prefix, prefixes, ".".join(keys))
        if prefixes:
            break
    for key, value in content.items():
        if depth < _DEPTH and isinstance(key, str) and not _OTHERS.search(key.lower()):
            yield from _networks(as_mapping(value), (*keys, key), depth + 1)


def _network(tensors, prefix, prefixes, place):
    inside, left_out = {}, []
    others = tuple(each for each in prefixes if each.startswith(prefix) and each != prefix)
    for name, tensor in tensors.items():
        head = _HEADS.fullmatch(name)
        if name.startswith(prefix) and not name.startswith(others):
            inside[name.removeprefix(prefix)] = tensor
        elif name.startswith(tuple(prefixes)) or name in _COUNTERS:
            continue  # another network's
        elif head and prefix.startswith(head[1]):  # one's own head beside a backbone
            inside.setdefault(head[2], tensor)
        else:
            left_out.append(name)
    return Network(": ".join(filter(None, (place, prefix))), inside, tuple(left_out))


def _tensors(content):
    """The tensors directly in a mapping, without the names of inner wrappers."""
    return {
        _INNER_WRAPPERS.sub("", name): value
        for name, value in content.items()
        if isinstance(name, str) and hasattr(value, "shape")
    }


def _state_dicts(content, keys=(), depth=0):
    """Mappings of nothing but tensors, where no network is recognised."""
    tensors = _tensors(content)
    if tensors and len(tensors) == len(content):
        yield Network(".".join(keys), tensors)
    for key, value in content.items():
        if depth < _DEPTH and isinstance(key, str) and not _OTHERS.search(key.lower()):
            yield from _state_dicts(as_mapping(value), (*keys, key), depth + 1)
