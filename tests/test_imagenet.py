"""The names of ImageNet's classes."""

from pit_keras.imagenet import CLASSES, class_names, synsets


def test_there_are_a_thousand_classes_in_wordnets_order():
    ids = [synset for synset, _ in synsets()]
    assert len(ids) == CLASSES
    assert ids == sorted(set(ids))
    assert synsets()[0] == ("n01440764", ("tench", "Tinca tinca"))
    assert synsets()[999][0] == "n15075141"


def test_every_class_has_a_name_of_its_own():
    names = class_names()
    assert len(set(names)) == CLASSES
    assert (names[0], names[207], names[817]) == ("tench", "golden retriever", "sports car")
    assert names[134] == "crane (n02012849)"
    assert names[517] == "crane (n03126707)"
