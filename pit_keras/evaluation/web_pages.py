"""Web pages of one file, which includes its pictures: to be sent, kept and opened offline."""

import base64
import pathlib

import jinja2

from pit_keras.errors import check_can_write


def check_page_folder(folder, files, option):
    """Checks, before long work, that files can be written into a folder, which may be new."""
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{option}={folder} is a file; give a folder.")
    for path in [folder / file for file in files] if folder.is_dir() else [folder]:
        check_can_write(path, option)


def render_page(template, **content):
    """The HTML text of a template of this package."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(template).render(**content)
    # Names of files and classes may hold bytes that are not text.
    return text.encode(errors="backslashreplace").decode()


def data_uri(kind, file):
    """A picture in a stream as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
