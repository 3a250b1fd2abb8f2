"""The names of ImageNet's classes."""

from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

from pit_keras.imagenet import CLASSES, class_names, in_words, synsets


def test_there_are_a_thousand_classes_in_wordnets_order():
    ids = [synset for synset, _ in synsets()]
    assert len(ids) == CLASSES
    assert ids == sorted(set(ids))
    assert synsets()[0] == ("n01440764", ("tench", "Tinca tinca"))
    assert synsets()[999][0] == "n15075141"


def test_the_classes_are_those_of_tfds_in_the_same_order():
    with open(imagenet_common.label_names_file()) as file:
        assert [synset for synset, _ in synsets()] == file.read().split()


def test_wordnets_ids_become_names_and_others_stay():
    assert in_words(synset for synset, _ in synsets()) == class_names()
    assert in_words(class_names()) == class_names()
    assert in_words(["n03126707", "cat", "n01440764"]) == ("crane (n03126707)", "cat", "tench")


def test_every_class_has_a_name_of_its_own():
    names = class_names()
    assert len(set(names)) == CLASSES
    assert (names[0], names[207], names[817]) == ("tench", "golden retriever", "sports car")
    assert names[134] == "crane (n02012849)"
    assert names[517] == "crane (n03126707)"
