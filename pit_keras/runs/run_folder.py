"""The folder of one run: which files it holds, and whether it may be written to."""

import contextlib
import csv
import io
import os
import pathlib

import filelock

from pit_keras.config.fields import Config, conflicts


class RunFolder:
    """Paths of a run's files. Making the object touches nothing.

    Attributes:
        config: `config.json`, all that is needed to run it again.
        classes: `classes.txt`, names of the classes, one a line, in the order of the logits.
        categories: `category_ids.txt`, of a detector the classes' ids in COCO's form, likewise.
        history: `history.csv`, one row an epoch.
        curves: `history.png`, the same as a plot.
        logs: `logs/`, for TensorBoard.
        preview: `preview.png`, training images; it may be there before a run is.
        log: `log.jsonl`, what happened and when, a JSON object a line.
        checkpoints: `checkpoints/`, the last complete training states and the best.
        unreadable: `unreadable.csv`, the images that training skipped and where in the data's
            stream they first were met; only where there are any.
        not_finite: `not_finite.csv`, the examples of a batch whose loss was not finite; only after
            such an end.
        model: `model.keras`, the best model, what one deploys.
        results: `results.json`, written last: the mark of a finished run.
        lock: `.lock`, held by the process that trains in the folder.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.classes = self.path / "classes.txt"
        self.categories = self.path / "category_ids.txt"
        self.history = self.path / "history.csv"
        self.curves = self.path / "history.png"
        self.logs = self.path / "logs"
        self.log = self.path / "log.jsonl"
        self.preview = self.path / "preview.png"
        self.checkpoints = self.path / "checkpoints"
        self.unreadable = self.path / "unreadable.csv"
        self.not_finite = self.path / "not_finite.csv"
        self.model = self.path / "model.keras"
        self.results = self.path / "results.json"
        self.lock = self.path / ".lock"

    @property
    def finished(self):
        """Whether the run in this folder has ended."""
        return self.results.exists()

    @property
    def begun(self):
        """Whether a training state is there to carry on from."""
        return any(self.checkpoints.glob("step-*.npz"))

    def check(self, config, class_names=None, category_ids=None):
        """Checks that a run of this configuration may use the folder; changes nothing.

        Args:
            config: The run's `Config`.
            class_names: Those of its data; None if they are not known yet.
            category_ids: Of a detector's data, see `create`.

        Raises:
            ValueError: If the folder holds another run, one of other classes, or files that are no
                run.
            NotADirectoryError: If it is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; --output_dir must be a folder.")
        if not self.config.exists():
            if self.finished:
                raise ValueError(
                    f"{self.path} holds a finished run, of which it cannot be told whether it is "
                    "this one: its config.json is lost. Choose another --output_dir."
                )
            if self.begun:  # its checkpoints know the configuration, and it is written anew
                return
            if self.path.exists() and set(self.path.iterdir()) - {self.lock, self.preview}:
                raise ValueError(
                    f"{self.path} holds files but no run (there is no config.json); choose an "
                    "empty or new --output_dir."
                )
            return
        stored = self.read_config()
        conflict = conflicts(stored, config)
        if conflict:
            raise ValueError(
                f"{self.path} holds another run: {conflict}. Choose another --output_dir."
            )
        self._check_classes(class_names, category_ids)

    def _check_classes(self, class_names, category_ids):
        """The data of a run may not get other classes, or others' numbers, in its midst."""
        if class_names is None or not self.classes.exists():
            return
        stored, given = self.read_classes(), tuple(class_names)
        if category_ids is not None and self.categories.exists():
            stored = tuple(zip(stored, self.read_categories(), strict=False))
            given = tuple(zip(given, category_ids, strict=True))
        if stored != given:
            raise ValueError(
                f"The data has other classes than the run in {self.path}, which knows "
                f"{_shortened(stored)} and not {_shortened(given)}; choose another --output_dir."
            )

    def read_config(self):
        """The configuration that the folder's run was started with."""
        try:
            return Config.from_json(self.config.read_text())
        except ValueError as error:
            raise ValueError(
                f"{self.config} is not a run's configuration: {str(error).rstrip('.')}. If it is "
                "damaged, delete it: the command that began the run writes it anew and carries on."
            ) from error

    def read_classes(self):
        """Names of the classes, in the order of the logits."""
        return tuple(self.classes.read_text().splitlines())

    def read_categories(self):
        """The classes' ids in COCO's form, in the order of the logits; of a detector."""
        return tuple(map(int, self.categories.read_text().split()))

    def create(self, config, class_names, category_ids=None):
        """Makes the folder and writes what is known before training.

        Args:
            config: The run's `Config`.
            class_names: One for each class.
            category_ids: For a detector of each class its id in COCO's form.

        Raises:
            OSError: If the folder cannot be written to.
        """
        self.make()
        write_atomically(self.classes, "".join(f"{name}\n" for name in class_names))
        if category_ids is not None:
            write_atomically(self.categories, "".join(f"{number}\n" for number in category_ids))
        write_atomically(self.config, config.to_json())

    @contextlib.contextmanager
    def locked(self):
        """Keeps other processes from training in the folder, which is made if need be.

        The operating system ends the lock with the process, however that ends; the empty file
        `.lock` that stays behind means nothing.

        Raises:
            OSError: If another process has the lock, or the folder cannot be written to.
        """
        self.make()
        lock = filelock.FileLock(self.lock)
        try:
            lock.acquire(timeout=1)  # `pit-keras runs` holds it for a moment
        except filelock.Timeout:
            raise OSError(
                f"Another process is training in {self.path}; wait for it to end, or choose "
                "another --output_dir."
            ) from None
        except OSError as error:
            raise OSError(f"--output_dir {self.path} cannot be written to ({error}).") from error
        try:
            for leftover in self.path.rglob(".*.incomplete.*"):  # of a process that was killed
                leftover.unlink()
            yield
        finally:
            lock.release()

    def make(self):
        """Makes the folder if need be.

        Raises:
            OSError: If that cannot be done.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"--output_dir {self.path} cannot be written to ({error}).") from error

    def write_unreadable(self, positions):
        """Writes the images that were skipped, {name: position in the data's stream}."""
        if positions:
            rows = ((position, name) for name, position in positions.items())
            _write_rows(self.unreadable, ("position", "image"), rows)

    def write_not_finite(self, names):
        """Writes the examples of a batch, {id: name}."""
        _write_rows(self.not_finite, ("id", "image"), names.items())


def _shortened(classes, most=5):
    """The first few classes in words."""
    words = ", ".join(
        " ".join(map(str, each)) if isinstance(each, tuple) else each for each in classes[:most]
    )
    return words + (", ..." if len(classes) > most else "")


def _write_rows(path, header, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue())


@contextlib.contextmanager
def explained(path):
    """Turns an error of the operating system into a sentence that names what was written."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}).") from error


def write_atomically(path, text):
    """Writes a text file so that a reader sees the old content or the new, never half of it.

    Raises:
        OSError: If it cannot be written; nothing of it stays.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        file.write(text)


def save_model_atomically(model, path):
    """`model.save`, so that an interrupted save leaves the file that was there before.

    Raises:
        OSError: If it cannot be written; nothing of it stays.
    """
    with replacing(path) as temporary:
        model.save(temporary)


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path, which takes the place of `path` when all went well.

    What was written there is on the disk before it has its name, so that not even a power failure
    leaves half of it.

    Raises:
        OSError: If it cannot be written; nothing of it stays.
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
