from __future__ import annotations

import pytest

from maskwright.errors import require_known


def test_unknown_names_are_told_with_the_nearest_and_the_known_ones() -> None:
    require_known(["cat"], ["dog", None, "cat"], "the data has classes")
    with pytest.raises(ValueError) as error:
        require_known(["cats", *"abcdef"], ["dog", None, "cat"], "photos has classes")
    assert str(error.value) == (
        "photos has classes that the model does not know: cats, a, b, c, d, ...; "
        "did you mean 'cat'? (the model knows dog, cat)"
    )
