"""The file in which class names travel with an exported model."""

CLASSES_FILE = "classes.txt"


def class_names_text(class_names):
    """One name a line, in the order of the logits.

    Raises:
        ValueError: If a name holds a line break, which would shift all names after it.
    """
    for name in class_names:
        if name.splitlines() not in ([name], []):
            raise ValueError(
                f"The class name {name!r} holds a line break; {CLASSES_FILE} has one name a line."
            )
    return "".join(f"{name}\n" for name in class_names)
