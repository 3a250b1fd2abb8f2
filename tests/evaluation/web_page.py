"""Reads a web page, for tests."""

import html.parser

VOID = {"meta", "link", "img", "br"}


class Page(html.parser.HTMLParser):
    """Elements, texts of cells, and whether each element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def texts_of(self, tag):
        return [text for name, text in self.texts if name == tag]
