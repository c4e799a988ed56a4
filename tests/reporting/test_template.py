import json

import pytest

from msa_flax.reporting.template import embedded


def test_json_cannot_end_its_element_and_comes_back():
    values = {"</script>": "<!-- & \u2028"}
    assert not set(embedded(values)) & set("<>&\u2028")
    assert json.loads(embedded(values)) == values
    with pytest.raises(ValueError, match="JSON"):
        embedded([float("nan")])
