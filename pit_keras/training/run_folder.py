"""The folder of one run: which files it holds, and whether it may be written to."""

import os
import pathlib
import tempfile

from pit_keras.training.config import Config, differences, get_field


class RunFolder:
    """Paths of a run's files. Making the object touches nothing.

    Attributes:
        config: `config.json`, all that is needed to run it again.
        classes: `classes.txt`, names of the classes, one a line, in the order of the logits.
        history: `history.csv`, one row an epoch.
        curves: `history.png`, the same as a plot.
        logs: `logs/`, for TensorBoard.
        checkpoints: `checkpoints/`, the last complete training states, and the best in `best/`.
        model: `model.keras`, the best model, what one deploys.
        results: `results.json`, written last: the mark of a finished run.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.classes = self.path / "classes.txt"
        self.history = self.path / "history.csv"
        self.curves = self.path / "history.png"
        self.logs = self.path / "logs"
        self.checkpoints = self.path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best"
        self.model = self.path / "model.keras"
        self.results = self.path / "results.json"

    @property
    def finished(self):
        """Whether the run in this folder has ended."""
        return self.results.exists()

    def check(self, config):
        """Checks that a run of this configuration may use the folder; changes nothing.

        Raises:
            ValueError: If the folder holds another run, or files that are no run.
            NotADirectoryError: If it is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; --output_dir must be a folder.")
        if not self.config.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise ValueError(
                    f"{self.path} holds files but no run (there is no config.json); choose an "
                    "empty or new --output_dir."
                )
            return
        stored = self.read_config()
        different = differences(stored, config)
        if different:
            values = "; ".join(
                f"{path} is {get_field(stored, path)!r} there and {get_field(config, path)!r} here"
                for path in different
            )
            raise ValueError(
                f"{self.path} holds another run: {values}. Choose another --output_dir."
            )

    def read_config(self):
        """The configuration that the folder's run was started with."""
        try:
            return Config.from_json(self.config.read_text())
        except ValueError as error:
            raise ValueError(f"{self.config} is not a run's configuration: {error}") from error

    def read_classes(self):
        """Names of the classes, in the order of the logits."""
        return tuple(self.classes.read_text().splitlines())

    def create(self, config, class_names):
        """Makes the folder and writes what is known before training.

        Raises:
            OSError: If the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.classes, "".join(f"{name}\n" for name in class_names))
            write_atomically(self.config, config.to_json())
        except OSError as error:
            raise OSError(f"--output_dir {self.path} cannot be written to ({error}).") from error


def write_atomically(path, text):
    """Writes a text file so that a reader sees the old content or the new, never half of it."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def save_model_atomically(model, path):
    """`model.save`, so that an interrupted save leaves the file that was there before."""
    temporary = path.with_name(f".{path.stem}.incomplete{path.suffix}")
    model.save(temporary)
    os.replace(temporary, path)
