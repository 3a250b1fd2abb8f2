"""Tables as Markdown."""


def markdown_table(header, rows, text_columns=(0,)):
    """A table of strings; the columns at the positions `text_columns` are aligned to the left."""
    rule = ["---" if column in text_columns else "--:" for column in range(len(header))]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(rule)}|"]
    # An empty cell is one space wide, and no line ends in two.
    lines += ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return "\n".join(lines) + "\n"
