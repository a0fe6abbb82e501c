from __future__ import annotations

import pytest

from maskwright.errors import nearest, require_known


def test_unknown_names_are_told_with_the_nearest_and_the_known_ones() -> None:
    require_known(["cat"], ["dog", None, "cat"], "the data has classes")
    with pytest.raises(ValueError) as error:
        require_known(["cats", *"abcdef"], ["dog", None, "cat"], "photos has classes")
    assert str(error.value) == (
        "photos has classes that the model does not know: cats, a, b, c, d, ...; "
        "did you mean 'cat'? (the model knows dog, cat)"
    )


def test_a_part_of_a_name_is_meant_where_nothing_else_is_near() -> None:
    known = ["tf_efficientnet_lite0", "efficientnet_lite0", "resnet18", "resnet50"]
    both = "; did you mean 'tf_efficientnet_lite0' or 'efficientnet_lite0'?"
    assert nearest("lite0", known) == both
    assert nearest("resnet1", known) == "; did you mean 'resnet18'?"
    assert nearest("resnet81", known) == "; did you mean 'resnet18'?"
    assert nearest("vit", known) == "" and nearest("0", known) == ""
    many = [f"a_name_of_some_length_{k}_deep" for k in range(7)]
    assert nearest("deep", many).endswith("length_3_deep'? (3 more have 'deep' in them)")
