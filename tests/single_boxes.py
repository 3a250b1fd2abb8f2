"""Definitions of what a detector's loss is made of, for single boxes and in Python's floats."""


def corners(box):
    """Corners of a box that is given by centre x, centre y, width and height."""
    x, y, width, height = (float(value) for value in box)
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def l1(box, other):
    return sum(abs(float(a) - float(b)) for a, b in zip(box, other, strict=True))


def overlap(box, other):
    """IoU and GIoU of two boxes given by their corners; a share of nothing is 0."""
    left, top, right, bottom = (float(value) for value in box)
    left2, top2, right2, bottom2 = (float(value) for value in other)
    width = min(right, right2) - max(left, left2)
    height = min(bottom, bottom2) - max(top, top2)
    intersection = width * height if width > 0 and height > 0 else 0.0
    union = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - intersection
    enclosing = (max(right, right2) - min(left, left2)) * (max(bottom, bottom2) - min(top, top2))
    shared = intersection / union if union else 0.0
    return shared, shared - ((enclosing - union) / enclosing if enclosing else 0.0)
