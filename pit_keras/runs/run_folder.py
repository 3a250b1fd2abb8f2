"""The folder of one run: which files it holds, and whether it may be written to."""

import contextlib
import csv
import io
import os
import pathlib
import textwrap
from unicodedata import normalize

from pit_keras.config.fields import Config, conflicts


class RunFolder:
    """Paths of a run's files. Making the object touches nothing."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"  # all that is needed to run it again
        self.classes = self.path / "classes.txt"  # names, one a line, in the order of the logits
        self.categories = self.path / "category_ids.txt"  # likewise a detector's ids, as in COCO
        self.history = self.path / "history.csv"  # one row an epoch
        self.curves = self.path / "history.png"
        self.logs = self.path / "logs"  # for TensorBoard
        self.log = self.path / "log.jsonl"  # what happened and when, a JSON object a line
        self.preview = self.path / "preview.png"  # training images; may be there before a run is
        self.checkpoints = self.path / "checkpoints"  # the last training states and the best
        self.unreadable = self.path / "unreadable.csv"  # images that training skipped, if any
        self.not_finite = self.path / "not_finite.csv"  # a batch whose loss was not finite, if any
        self.model = self.path / "model.keras"  # the best model, the one to deploy
        self.results = self.path / "results.json"  # written last: the mark of a finished run
        self.lock = self.path / ".lock"  # held by the process that trains in the folder

    @property
    def finished(self):
        return self.results.exists()

    @property
    def begun(self):
        """Whether there is a training state to resume from."""
        return any(self.checkpoints.glob("step-*.npz"))

    @property
    def is_run(self):
        """Whether the folder is a run's, even if some of its files are lost."""
        is_trained = self.classes.exists() and (self.history.exists() or self.log.exists())
        return self.config.exists() or self.begun or is_trained

    def held(self, name):
        """A text that the newest checkpoint that can be read holds; None without one.

        "config", "progress", "classes" and a detector's "category_ids", which files hold too.
        """
        import numpy as np  # here, since a command's help should not wait for it

        for path in sorted(self.checkpoints.glob("step-*.npz"), reverse=True):
            try:
                with np.load(path, allow_pickle=False) as archive:
                    return str(archive[name])
            except Exception:  # NumPy and zipfile have no error of their own for damage
                continue
        return None

    def check(self, config, class_names=None, category_ids=None):
        """Checks that a run may use the folder: that it holds no other run, classes or files.

        `class_names` is None where they are not known yet.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; --output_dir must be a folder.")
        class_names_text(class_names or ())
        if not self.config.exists() and self.held("config") is None:
            if self.finished:
                raise ValueError(
                    f"{self.path} holds a finished run, but its config.json is lost; choose "
                    "another --output_dir."
                )
            files = set(self.path.iterdir()) if self.path.exists() else set()
            # A begun run's checkpoints hold the configuration, and it is written anew.
            if files - {self.lock, self.preview} and not self.begun:
                raise ValueError(
                    f"{self.path} holds files but no run; choose an empty or new --output_dir."
                )
            return
        conflict = conflicts(self.read_config(), config)
        if conflict:
            raise ValueError(
                f"{self.path} holds another run: {conflict}. Choose another --output_dir."
            )
        self._check_classes(class_names, category_ids)

    def _check_classes(self, class_names, category_ids):
        """The classes of a run's data, and their ids, must not change before it is finished."""
        held = self.held("classes")
        if class_names is None or (held is None and not self.classes.exists()):
            return
        names = read_class_names(self.classes) if held is None else held.splitlines()
        stored = [normalize("NFC", name) for name in names]
        given = [normalize("NFC", name) for name in class_names]
        ids = self.held("category_ids")
        if ids is None and category_ids is not None and self.categories.exists():
            ids = self.categories.read_text()
        if category_ids is not None and ids is not None:
            ids = ids.split()
            stored = [f"{name} {number}" for name, number in zip(stored, ids, strict=False)]
            given = [f"{name} {number}" for name, number in zip(given, category_ids, strict=True)]
        if stored != given:
            before, now = (textwrap.shorten(", ".join(names), 80) for names in (stored, given))
            raise ValueError(
                f"The run in {self.path} was trained on the classes {before}, the data has {now}; "
                "choose another --output_dir."
            )

    def read_config(self):
        """The run's configuration, from a checkpoint if `config.json` is lost or damaged."""
        try:
            return Config.from_json(self.config.read_text())
        except (ValueError, OSError) as error:
            held = self.held("config")
            with contextlib.suppress(ValueError):
                if held is not None:
                    return Config.from_json(held)
            if isinstance(error, OSError):
                raise OSError(
                    f"{self.config}, which says how a model's images are prepared, cannot be read "
                    f"({error.strerror}), and no checkpoint holds it; put a copy back."
                ) from error
            raise ValueError(
                f"{self.config} is not a run's configuration: {str(error).rstrip('.')}. No "
                "checkpoint holds it either; put a copy back."
            ) from error

    def read_class_names(self, count):
        """The names of so many classes, from a checkpoint if `classes.txt` is lost or damaged."""
        try:
            names = read_class_names(self.classes)
        except (ValueError, OSError):
            names = None
        if names is None or len(names) != count:
            held = self.held("classes")
            if held is not None and len(held.splitlines()) == count:
                return tuple(held.splitlines())
        return read_class_names(self.classes) if names is None else names

    def must_be_there(self):
        """Raises an error if the folder of a run that trains has been removed or moved away."""
        if not self.config.exists():
            raise FileNotFoundError(
                f"{self.path} was removed or moved while the run trained: its config.json is gone. "
                "Nothing more is saved; put the folder back and repeat the command."
            )

    def create(self, config, class_names, category_ids=None):
        """Makes the folder, if a run may use it, and writes what is known before training."""
        self.check(config, class_names, category_ids)
        self.make()
        write_atomically(self.classes, class_names_text(class_names))
        if category_ids is not None:
            write_atomically(self.categories, "".join(f"{number}\n" for number in category_ids))
        write_atomically(self.config, config.to_json())

    @contextlib.contextmanager
    def locked(self):
        """Keeps other processes from training in the folder, which is made if need be.

        The operating system ends the lock with the process, however that ends; the empty file
        `.lock` that stays behind means nothing.
        """
        self.make()
        import filelock  # here, since a command's help should not wait for it

        lock = filelock.FileLock(self.lock)
        try:
            lock.acquire(timeout=1)  # `pit-keras runs` holds it for a moment
        except filelock.Timeout:
            raise OSError(f"Another process is training in {self.path}; wait for it.") from None
        except OSError as error:
            raise OSError(f"--output_dir {self.path} cannot be written to ({error}).") from error
        try:
            for leftover in self.path.rglob(".*.incomplete.*"):  # of a process that was killed
                leftover.unlink()
            yield
        finally:
            lock.release()

    def make(self):
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def write_history(self, rows):
        """Writes a row for each epoch, {column: value}; without any the file is removed.

        Measured times are in `log.jsonl`, not here, so that a run has the same history byte for
        byte however often it was interrupted.
        """
        if rows:
            write_atomically(self.history, csv_text(rows))
        else:
            self.history.unlink(missing_ok=True)

    def write_unreadable(self, positions):
        """Writes the images that were skipped, {name: position in the data's stream}."""
        if positions:
            rows = [{"position": position, "image": name} for name, position in positions.items()]
            write_atomically(self.unreadable, csv_text(rows))

    def write_not_finite(self, names):
        """Writes the examples of a batch, {id: name}."""
        rows = [{"id": id_, "image": name} for id_, name in names.items()]
        write_atomically(self.not_finite, csv_text(rows))


def class_names_text(class_names):
    """One name a line, in the order of the logits; `read_class_names` gives the same names back."""
    for name in class_names:
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
            raise ValueError(f"The class name {name!r} is not UTF-8 text; rename the class.")
        if name.splitlines() not in ([name], []):  # it would shift all names after it
            raise ValueError(f"The class name {name!r} holds a line break; rename the class.")
        if name.startswith("\ufeff"):  # which reading takes for the file's mark
            raise ValueError(f"The class name {name!r} begins with a mark; rename the class.")
    return "".join(f"{name}\n" for name in class_names)


def read_class_names(path):
    """The class names in a UTF-8 text file, one a line, in the order of the logits."""
    try:
        return tuple(pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text with a class name a line.") from error


def counted_from_one(rows):
    """The rows of a history; earlier versions counted its epochs from 0."""
    if rows and rows[0]["epoch"] == 0:
        return [{**row, "epoch": row["epoch"] + 1} for row in rows]
    return rows


def csv_text(rows, columns=None):
    """Rows, {column: value}, as CSV; columns are by default the first row's."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or rows[0], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextlib.contextmanager
def explained(path):
    """Turns an error of the operating system into a sentence with the file's name."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}).") from error


def write_atomically(path, text):
    """Writes a text file so that a reader sees the old content or the new, never half of it."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        file.write(text)


@contextlib.contextmanager
def replacing(path):
    """A temporary path, whose file takes the place of `path` at the end, if there is no error.

    The file is on the disk before it has its name, so that not even a power failure leaves half of
    it. Nothing stays of a file that cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.incomplete{path.suffix}")
    try:
        with explained(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            with contextlib.suppress(OSError):  # not every system has folders that can be synced
                _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_model(path):
    """The `.keras` file that a run folder or a `.keras` file names, and its `RunFolder` or None."""
    path = pathlib.Path(path)
    folder = RunFolder(path if path.is_dir() else path.parent)
    file = folder.model if path.is_dir() else path
    if not file.is_file():
        what = "has no model.keras yet" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{path} {what}; give a run folder or a .keras file (predict, serve: or .tflite)."
        )
    if file.suffix != ".keras":
        raise ValueError(f"{file} is not a model; give a run folder or a .keras file.")
    return file, folder if folder.is_run else None
