"""Which files of a folder are images: by their ending, and without a known one by their content."""

import os

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # of JPEG and PNG
# What file managers, network storage and archives leave behind beside what is hidden.
_LEFTOVERS = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__"),
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found"),
    "system volume information",
}


def is_leftover(name):
    """Whether a file or folder of this name is hidden, or no work of the user's."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def is_image(path):
    """Whether a file is a JPEG or PNG; its content is read only where its ending leaves it open."""
    if path.lower().endswith(IMAGE_SUFFIXES):
        return True
    if not os.path.isfile(path):  # a pipe would wait for a writer
        return False
    try:
        with open(path, "rb") as file:
            return file.read(8).startswith(_FIRST_BYTES)
    except OSError:
        return False


def ending(name):
    """A file's kind as it is counted among what is left out: `.webp`."""
    return os.path.splitext(name)[1].lower() or "files without an ending"


def in_words(left_out):
    """`24 .bmp, 3 .txt` of {kind: count}."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
