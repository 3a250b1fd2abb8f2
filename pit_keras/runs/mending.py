"""A finished run, whose lost or damaged files are written anew from its checkpoints."""

import json

from pit_keras.config.fields import Config
from pit_keras.runs.comparison import read_history, read_results
from pit_keras.runs.run_folder import read_class_names


def stored_results(folder):
    """The content of `results.json`; None if it is missing or, with a message, damaged."""
    try:
        return read_results(folder.results)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        print(f"{folder.results} is damaged; it is written anew.")
        return None


def finished_results(folder, keeper, config, class_names, category_ids):
    """The results of a finished run; its small files and its model are mended before.

    Args:
        keeper: The `RunKeeper` of the folder.
        config, class_names, category_ids: What `RunFolder.create` writes.
    """
    results = stored_results(folder)
    epochs = results.get("epochs", config.training.epochs)
    readers = {
        folder.config: lambda file: Config.from_json(file.read_text()),
        folder.classes: lambda file: _require(read_class_names(file), len(class_names)),
        folder.history: lambda file: _require(read_history(file), epochs),
    }
    damaged = [file for file, read in readers.items() if not _can_read(read, file)]
    is_model_lost = keeper.model_weights() is None
    if not damaged and not is_model_lost:
        print(f"The run in {folder.path} is finished; nothing is changed.")
        return results
    with folder.locked():
        if is_model_lost:
            keeper.mend_model()
        progress = folder.held("progress")
        if folder.history in damaged and progress is not None:
            folder.write_history(json.loads(progress)["history"])
        if {folder.config, folder.classes} & set(damaged):
            folder.create(config, class_names, category_ids)
        for file in damaged:
            is_mended = _can_read(readers[file], file)
            words = "written anew" if is_mended else "damaged, and no checkpoint holds it"
            print(f"{file} is {words}.")
    return results


def _require(entries, count):
    if len(entries) != count:
        raise ValueError


def _can_read(read, file):
    try:
        read(file)
    except (ValueError, OSError):
        return False
    return True
