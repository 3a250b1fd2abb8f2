"""Released weights from a local Hub and from the Hub client's cache: random, in the true layout."""

import pathlib
import re
import shutil
import types

import forked
import huggingface_hub
import keras
import numpy as np
import pytest
import safetensors.numpy
from fixed_weights import fixed_state_dict
from hub import serving
from huggingface_hub import constants

import pit_keras
from pit_keras.weights import load_weights, released

COMMIT = released.RELEASES["pit_ti_distilled"].revision  # the pinned one of the two
PLAIN, DISTILLED = "timm/pit_ti_224.in1k", "timm/pit_ti_distilled_224.in1k"
GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/models.npz")


def state_dict(name):
    keys = (line.split() for line in GOLDEN[f"{name}/keys"])
    return fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in keys})


@pytest.fixture(scope="module")
def contents():
    """The files of two repositories."""
    return {
        PLAIN: safetensors.numpy.save(state_dict("pit_ti")),
        DISTILLED: safetensors.numpy.save(state_dict("pit_ti_distilled")),
    }


@pytest.fixture
def hub(contents, tmp_path, monkeypatch):
    """A Hub, and empty caches: `keras` and `huggingface` in the test's folder."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving(dict(contents), COMMIT) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture(scope="module")
def model():
    """A model whose weights any test may replace."""
    return pit_keras.create_model("pit_ti")


@pytest.fixture(scope="module")
def expected(model):
    """The values that the checkpoint stands for."""
    pit_keras.load_pytorch_weights(model, state_dict("pit_ti"))
    return model.get_weights()


def assert_holds(model, expected):
    for actual, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(actual, value)


def files_in(folder):
    """Names of all files in a folder, but for Keras' own settings."""
    names = (path.name for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != "keras.json")


def go_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_every_pit_and_vit_the_teacher_and_the_resnet_are_released():
    transformers = {*pit_keras.list_models("pit_*"), *pit_keras.list_models("vit_*")}
    assert transformers | {"regnety_160", "resnet50"} == set(released.RELEASES)
    for name, release in released.RELEASES.items():
        assert ("distilled" in name) == ("distilled" in release.repository)
        assert re.fullmatch("main|[0-9a-f]{40}", release.revision)
        assert re.fullmatch("([0-9a-f]{64})?", release.sha256)


def test_weights_are_fetched_once_and_then_need_neither_hub_nor_its_cache(
    hub, model, expected, tmp_path, monkeypatch
):
    report = load_weights(model, "imagenet")
    assert_holds(model, expected)
    assert report.source == f"{PLAIN} ({COMMIT[:12]})"
    assert files_in(tmp_path / "keras") == ["pit_ti-main.safetensors"]
    asked = hub.requests.copy()

    shutil.rmtree(tmp_path / "huggingface")
    go_offline(monkeypatch)
    smaller = pit_keras.create_model("pit_ti", input_shape=(96, 64, 1), weights="imagenet")
    again = load_weights(model, "imagenet")

    assert_holds(model, expected)
    assert again == report
    assert np.array_equal(smaller.get_layer("norm").gamma, model.get_layer("norm").gamma)
    assert hub.requests == asked


def test_the_pinned_revision_is_asked_for(hub):
    distilled = pit_keras.create_model("pit_ti_distilled", weights="imagenet")
    kernel = distilled.get_layer("head_dist").kernel
    np.testing.assert_array_equal(kernel, state_dict("pit_ti_distilled")["head_dist.weight"].T)
    assert {path.split("/resolve/")[1] for path in hub.requests} == {f"{COMMIT}/model.safetensors"}


def test_what_a_model_without_its_top_fetched_is_whole(hub, model, expected):
    pit_keras.create_model("pit_ti", include_top=False, weights="imagenet")
    asked = hub.requests.copy()
    load_weights(model, "imagenet")
    assert_holds(model, expected)
    assert hub.requests == asked


def test_where_the_weights_came_from_is_kept_with_them(hub, model, contents):
    load_weights(model, "imagenet")
    with safetensors.safe_open(released.converted_file("pit_ti"), "np") as file:
        metadata = file.metadata()
    assert metadata["repository"] == PLAIN
    assert metadata["commit"] == COMMIT
    assert metadata["sha256"] == released.hashlib.sha256(contents[PLAIN]).hexdigest()


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-5000]])
def test_an_altered_or_truncated_download_is_refused_and_not_kept(
    hub, model, expected, tmp_path, damage
):
    before = model.get_weights()
    hub.damage = damage

    with pytest.raises((ValueError, OSError)) as error:
        load_weights(model, "imagenet")

    assert re.search("truncated or altered|could not be downloaded", str(error.value))
    assert "\n" not in str(error.value)
    assert files_in(tmp_path / "keras") == []
    kept = [name for name in files_in(tmp_path / "huggingface") if re.search("safetensors$", name)]
    assert kept == []
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    hub.damage = lambda content: content
    load_weights(model, "imagenet")
    assert_holds(model, expected)


def test_a_file_other_than_the_pinned_one_is_refused(hub, contents, tmp_path):
    hub.files["timm/deit_tiny_patch16_224.fb_in1k"] = contents[PLAIN]
    hub.commit = released.RELEASES["vit_ti"].revision
    with pytest.raises(ValueError, match=r"its sha256 is \w+\.\.\. instead of 21d4764d94f6"):
        released.fetch("vit_ti")
    assert files_in(tmp_path / "keras") == []


def test_a_checkpoint_that_is_of_another_model_is_refused_and_not_kept(hub, contents, tmp_path):
    hub.files[PLAIN] = contents[DISTILLED]
    with pytest.raises(ValueError, match="looks like a checkpoint of pit_ti_distilled"):
        pit_keras.create_model("pit_ti", weights="imagenet")
    assert files_in(tmp_path / "keras") == []


def test_without_network_the_error_says_what_to_put_where_and_then_it_works(
    hub, model, expected, contents, monkeypatch
):
    go_offline(monkeypatch)
    with pytest.raises(FileNotFoundError) as error:
        load_weights(model, "imagenet")
    asked = re.search(
        r"download (\S+) on another machine and save it here as (\S+)$", str(error.value)
    )
    url, place = asked.groups()
    assert url == "https://huggingface.co/timm/pit_ti_224.in1k/resolve/main/model.safetensors"

    pathlib.Path(place).parent.mkdir(parents=True)
    pathlib.Path(place).write_bytes(contents[PLAIN])
    load_weights(model, "imagenet")

    assert_holds(model, expected)


def test_an_unreachable_hub_is_tried_twice_and_not_for_half_a_minute(hub, monkeypatch):
    tried = []

    def head(url, **_):
        tried.append(url)
        raise ConnectionError

    monkeypatch.setattr(
        huggingface_hub.utils, "get_session", lambda: types.SimpleNamespace(head=head)
    )
    with pytest.raises(FileNotFoundError, match=r"cannot be reached: download \S+ on another"):
        released.fetch("pit_ti")
    assert len(tried) == 2
    assert not hub.requests


def test_a_model_with_a_name_of_its_own_is_known_by_its_architecture(hub, model, expected):
    own = keras.Model(model.input, model.output, name="mine")
    report = load_weights(own, "imagenet")
    assert_holds(own, expected)
    assert report.model == "mine"
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="dense")
    with pytest.raises(ValueError, match=r"no released weights for dense; .*create_model\(VARIANT"):
        load_weights(other, "imagenet")


def test_sizes_that_the_released_weights_cannot_fit_are_refused_before_they_are_fetched(hub):
    with pytest.raises(ValueError, match=r"pit_ti_224.in1k has head_dim=32, unlike this pit_ti"):
        pit_keras.create_model("pit_ti", head_dim=16, weights="imagenet")
    with pytest.raises(ValueError, match="no released weights for resnet50_no_pooling"):
        pit_keras.create_model("resnet50_no_pooling", weights="imagenet")
    assert not hub.requests


def test_a_file_placed_by_hand_is_checked_too(hub, contents):
    place = released.hand_placed_file("vit_ti")
    place.parent.mkdir(parents=True)
    place.write_bytes(contents[PLAIN])
    with pytest.raises(ValueError, match=r"is truncated or altered: .*; download https://"):
        released.fetch("vit_ti")
    assert place.exists()  # it is the user's


def test_the_hub_clients_own_cache_serves_offline(hub, model, expected, monkeypatch):
    huggingface_hub.hf_hub_download(PLAIN, "model.safetensors", revision="main")
    go_offline(monkeypatch)
    load_weights(model, "imagenet")
    assert_holds(model, expected)


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-4], lambda content: b""])
def test_a_damaged_converted_file_is_removed_and_made_anew(hub, model, expected, damage):
    load_weights(model, "imagenet")
    file = released.converted_file("pit_ti")
    file.write_bytes(damage(file.read_bytes()))

    with pytest.warns(UserWarning, match="is damaged .* It was removed, and is made anew"):
        load_weights(model, "imagenet")

    assert_holds(model, expected)
    assert released.from_cache("pit_ti") is not None


def test_a_damaged_converted_file_is_removed_even_if_none_can_be_had(hub, model, monkeypatch):
    file = released.converted_file("pit_ti")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    go_offline(monkeypatch)
    with (
        pytest.warns(UserWarning, match="It was removed"),
        pytest.raises(FileNotFoundError, match="cannot be reached"),
    ):
        load_weights(model, "imagenet")
    assert not file.exists()


def test_models_without_released_weights_are_told_which_have_some():
    with pytest.raises(ValueError, match=r"no released weights for x; there are for pit_b, .*vit_"):
        released.release_of("x")


def with_hub(code, hub, tmp_path):
    """Code for another process, to run with this Hub and these caches."""
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "KERAS_HOME": str(tmp_path / "keras"),
    }
    return f"import os\nos.environ.update({environment!r})\n{code}"


def test_two_processes_may_fetch_at_once(hub, tmp_path):
    code = "import pit_keras; pit_keras.create_model('pit_ti', weights='imagenet')\n"
    script = tmp_path / "fetch.py"
    script.write_text(with_hub(code, hub, tmp_path))
    log = tmp_path / "log.txt"
    processes = [forked.start_script(script, (), log) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0, log.read_text()
    assert files_in(tmp_path / "keras") == ["pit_ti-main.safetensors"]


def test_a_full_disk_is_told_in_one_sentence_and_leaves_nothing_behind(hub, tmp_path):
    """A limit on the size of files stands in for the disk: what is fetched fits, and no more."""
    code = f"""
import resource, huggingface_hub
huggingface_hub.hf_hub_download({PLAIN!r}, "model.safetensors")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
import pit_keras
try:
    pit_keras.create_model("pit_ti", weights="imagenet")
except OSError as error:
    print(error)
"""
    process = forked.run_code(with_hub(code, hub, tmp_path))
    assert re.fullmatch(
        r"The converted weights \(19 MB\) cannot be written to \S+ \(File too large\): make room "
        r"there, or set KERAS_HOME to another folder\.\n",
        process.stdout,
    ), process.stderr
    assert files_in(tmp_path / "keras") == []


def test_only_a_whole_checkpoint_of_the_model_itself_is_kept(hub):
    place = released.hand_placed_file("pit_ti")
    place.parent.mkdir(parents=True)
    headless = {
        key: value for key, value in state_dict("pit_ti").items() if not key.startswith("head")
    }
    safetensors.numpy.save_file(headless, place)

    with pytest.raises(ValueError, match="is not the release of pit_ti: it has no classifier"):
        pit_keras.create_model("pit_ti", weights="imagenet", include_top=False)

    assert not released.converted_file("pit_ti").exists()
