"""What is wrong with a folder of images, before a network is trained on it."""

import collections
import dataclasses
import os
from typing import NamedTuple

import numpy as np

from pit_keras.data.class_folders import list_folder
from pit_keras.data.class_matching import listing
from pit_keras.data.image_facts import read_images
from pit_keras.data.image_files import in_words
from pit_keras.data.similar_images import near_duplicates
from pit_keras.evaluation.wrong_labels import NEIGHBOURS, plain_features, wrong_labels
from pit_keras.models.features import pre_logits
from pit_keras.runs.run_folder import csv_text

SEVERITIES = ("error", "warning", "remark")
LEAST_IMAGES = 20  # for training, of a class
LARGEST_RATIO = 10  # of the images of two classes
LEAST_SIDE = 32  # pixels
COLUMNS = ("severity", "kind", "file", "other_file", "class", "detail")
_OTHER_IMAGES = (".webp", ".heic", ".heif", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".jp2")


class Kind(NamedTuple):
    severity: str
    title: str
    advice: str


# The worst first.
KINDS = {
    "refused": Kind("error", "Classes that training refuses", "Add images, or remove the folders."),
    "unreadable": Kind(
        "error",
        "Files that cannot be read",
        "Training skips them, evaluation stops at them: replace or remove them.",
    ),
    "two_classes": Kind(
        "error", "The same image in two classes", "One of the labels is wrong: remove that file."
    ),
    "two_splits": Kind(
        "error",
        "The same image in training and validation",
        "The accuracy measured is too high: remove one of the files.",
    ),
    "near_two_classes": Kind(
        "warning", "Nearly the same image in two classes", "One of the labels may be wrong."
    ),
    "near_two_splits": Kind(
        "warning",
        "Nearly the same image in training and validation",
        "The accuracy measured may be too high: keep pictures of one scene in one split.",
    ),
    "twice": Kind("warning", "The same image twice", "It counts twice: remove one of the files."),
    "wrong_label": Kind(
        "warning",
        "Probable wrong labels",
        "Nearly all similar images belong to another class: look, and move the file.",
    ),
    "few_images": Kind(
        "warning",
        f"Classes with fewer than {LEAST_IMAGES} images for training",
        "Add images: so few are hardly learnt, and their accuracy says little.",
    ),
    "rotated": Kind(
        "warning",
        "Photographs stored on their side or head, with a note in EXIF",
        "Turn them, or train with --config.data.apply_orientation=true; here they are as stored.",
    ),
    "other_format": Kind(
        "warning", "Images of other formats, left out", "Convert them to JPEG or PNG."
    ),
    "near_twice": Kind("remark", "Nearly the same image twice", "It counts nearly twice."),
    "uneven": Kind(
        "remark",
        f"Classes more than {LARGEST_RATIO} times as large as the smallest",
        "Look at the recall of each class, not at the accuracy alone.",
    ),
    "left_out": Kind("remark", "Left out", "These are no images of a class."),
    "misnamed": Kind("remark", "Files whose ending says another format", "They are read."),
    "tiny": Kind(
        "remark",
        f"Images with a side below {LEAST_SIDE} pixels",
        "A network sees them enlarged.",
    ),
    "grey": Kind("remark", "Grey images", "Their three channels are equal."),
    "transparent": Kind(
        "remark", "Images with transparency", "It is dropped: the pixels under it show, as here."
    ),
    "cmyk": Kind("remark", "Images in CMYK, for print", "They are converted, with other colours."),
}


class Finding(NamedTuple):
    """One row of the CSV. Files are below the folder, and empty where the finding is on none."""

    kind: str
    file: str = ""
    other_file: str = ""
    class_name: str = ""
    detail: str = ""

    @property
    def severity(self):
        return KINDS[self.kind].severity

    def in_words(self):
        where = " = ".join(filter(None, (self.file, self.other_file))) or self.class_name
        return ": ".join(filter(None, (where, self.detail)))


@dataclasses.dataclass(frozen=True)
class FolderCheck:
    """All that was found in a folder, the worst first."""

    folder: str
    class_names: tuple[str, ...]
    images: dict[str, list[int]]  # of each split, the images of each class
    sizes: np.ndarray  # width and height (N, 2) of the images that can be read
    features: str  # those that show wrong labels, in words
    not_judged: list[str]  # classes that they do not tell from others
    findings: list[Finding]

    def by_kind(self):
        """{kind: its findings}, without the kinds that were not found."""
        found = {kind: [each for each in self.findings if each.kind == kind] for kind in KINDS}
        return {kind: findings for kind, findings in found.items() if findings}

    def count(self, severity):
        return sum(each.severity == severity for each in self.findings)

    def judged_by(self):
        """By what labels were judged, and which were not, in words."""
        if not self.not_judged:
            return self.features
        all_ = len(self.not_judged) == len(self.class_names)
        which = "any class" if all_ else f"the classes {listing(self.not_judged)}"
        return f"{self.features}, which do not tell {which} from others"

    def csv(self):
        return csv_text(
            [dict(zip(COLUMNS, (each.severity, *each), strict=True)) for each in self.findings],
            COLUMNS,
        )


def check_folder(path, holdout=0.1, trained=None, track=lambda items, words: items):
    """Checks a folder as `list_folder` reads it.

    Args:
        holdout: The share of each class that training would hold out.
        trained: A `TrainedModel` whose features tell classes apart; None for plain ones.
        track: Shows the progress of passing over `items`; `words` say what is done.
    """
    left_out, problems = collections.Counter(), []
    files = _Files(path, list_folder(path, holdout, left_out, problems))
    if not files.paths:
        instead = f"; it holds {in_words(left_out)}" if left_out else ""
        raise ValueError(f"{files.folder} holds no JPEG or PNG images of classes{instead}.")
    facts, features = _read(files.paths, trained, track)
    readable = [index for index, each in enumerate(facts) if not each.problem]
    copies = _copies([facts[index] for index in readable], readable, files, track)
    single = [place for place, index in enumerate(readable) if index not in copies]
    indices = np.array(readable, int)[single]
    wrong, judged = wrong_labels(
        features[single],
        files.labels[indices],
        len(files.class_names),
        lambda items: track(items, "Comparing neighbours"),
    )
    findings = [
        *(Finding("refused", detail=sentence) for sentence in problems),
        *files.of_images(facts),
        *(files.of_copy(*pair, kind) for pair, kind in copies.values()),
        *(files.of_label(indices[place], *other) for place, other in wrong.items()),
        *files.of_classes(),
        *_of_left_out(left_out),
    ]
    order = list(KINDS)
    return FolderCheck(
        files.folder,
        files.class_names,
        files.counts,
        np.reshape([facts[index].size for index in readable], (-1, 2)),
        "edges and colours alone" if trained is None else f"the features of {trained.model.name}",
        [name for name, is_judged in zip(files.class_names, judged, strict=True) if not is_judged],
        sorted(findings, key=lambda finding: order.index(finding.kind)),
    )


class _Files:
    """The listed files, those for training first, and the findings on them."""

    def __init__(self, folder, listed):
        self.folder = os.path.normpath(os.path.expanduser(folder))
        self.class_names, paths, labels = listed
        self.paths = [*paths["train"], *paths["val"]]
        self.labels = np.array([*labels["train"], *labels["val"]], int)
        self.in_training = len(paths["train"])
        classes = len(self.class_names)
        self.counts = {
            split: np.bincount(np.array(of, int), minlength=classes).tolist()
            for split, of in labels.items()
        }

    def differences(self, one, other):
        """Whether two images are of two classes, and whether of two splits."""
        in_training = one < self.in_training, other < self.in_training
        return bool(self.labels[one] != self.labels[other]), in_training[0] != in_training[1]

    def finding(self, kind, index, other=None, detail=""):
        below, other = self._below(index), "" if other is None else self._below(other)
        return Finding(kind, below, other, self.class_names[self.labels[index]], detail)

    def _below(self, index):
        return os.path.relpath(self.paths[index], self.folder)

    def of_copy(self, index, other, kind):
        detail = "in training and validation" if all(self.differences(index, other)) else ""
        return self.finding(kind, index, other, detail)

    def of_label(self, index, other, neighbours):
        detail = f"{neighbours} of {NEIGHBOURS} neighbours are {self.class_names[other]}"
        return self.finding("wrong_label", index, detail=detail)

    def of_images(self, facts):
        """Findings on single images; a remark on most of them is one finding."""
        found = collections.defaultdict(list)
        for index, each in enumerate(facts):
            for kind, detail in _kinds_of(each):
                found[kind].append(self.finding(kind, index, detail=detail))
        for kind, findings in found.items():
            if KINDS[kind].severity == "remark" and 2 * len(findings) > len(facts):
                yield Finding(kind, detail=f"{len(findings):,} of {len(facts):,} images")
            else:
                yield from findings

    def of_classes(self):
        smallest = min(self.counts["train"])
        for name, images in zip(self.class_names, self.counts["train"], strict=True):
            if images < LEAST_IMAGES:
                yield Finding("few_images", class_name=name, detail=_images(images))
            if images > LARGEST_RATIO * smallest > 0:
                detail = f"{_images(images)}, the smallest class has {smallest:,}"
                yield Finding("uneven", class_name=name, detail=detail)


def _read(paths, trained, track):
    """The `ImageFacts` of all files, without crops, and features (N, D) of those that are read."""
    network = trained and dataclasses.replace(trained, model=pre_logits(trained.model))
    facts, features = [], [np.zeros((0, 1), np.float32)]
    for chunk in read_images(paths, trained and trained.data, lambda all_: track(all_, "Reading")):
        good = [each for each in chunk if not each.problem]
        if good and network:
            features.append(network.logits_of_crops(np.stack([each.crop for each in good])))
        elif good:
            features.append(plain_features(np.stack([each.small for each in good])))
        facts += [dataclasses.replace(each, crop=None) for each in chunk]
    return facts, np.concatenate(features[1:] or features)


def _kinds_of(facts):
    """The kinds of finding on one image, each with its detail."""
    if facts.problem:
        yield "unreadable", facts.problem
        return
    if 2 <= facts.orientation <= 8:
        yield "rotated", f"EXIF orientation {facts.orientation}"
    if min(facts.size) < LEAST_SIDE:
        yield "tiny", "{} x {} pixels".format(*facts.size)
    if facts.misnamed:
        yield "misnamed", f"a {facts.misnamed} file"
    for kind in ("grey", "transparent", "cmyk"):
        if getattr(facts, f"is_{kind}"):
            yield kind, ""


def _copies(facts, indices, files, track):
    """{index: ((index, an earlier image like it), kind)}; `indices` are those of the `facts`.

    Of several like it the worst is given: one of another class, else of the other split.
    """
    copies, first = {}, collections.defaultdict(dict)
    if not indices:
        return copies

    def add(prefix, index, others):
        other = max(others, key=lambda other: files.differences(index, other))
        two_classes, two_splits = files.differences(index, other)
        kind = "two_classes" if two_classes else "two_splits" if two_splits else "twice"
        copies[index] = (index, other), prefix + kind

    for index, each in zip(indices, facts, strict=True):
        earlier = first[each.digest]
        if earlier:
            add("", index, earlier.values())
        earlier.setdefault((files.labels[index], index < files.in_training), index)
    different = [place for place, index in enumerate(indices) if index not in copies]
    small = np.array([facts[place].small for place in different], np.uint8)
    near = collections.defaultdict(list)
    for one, other in near_duplicates(small, lambda items: track(items, "Comparing images")):
        near[indices[different[other]]].append(indices[different[one]])
    for index, others in near.items():
        add("near_", index, others)
    return copies


def _images(count):
    return f"{count:,} image{'' if count == 1 else 's'}"


def _of_left_out(left_out):
    for kind, count in sorted(left_out.items()):
        is_image = kind in _OTHER_IMAGES
        yield Finding("other_format" if is_image else "left_out", detail=f"{count:,} {kind}")
