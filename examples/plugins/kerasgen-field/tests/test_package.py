"""The package declares what it holds."""

from kerasgen.cli import main


def test_kerasgen_loads_every_plugin_of_the_package() -> None:
    assert main(["plugins", "check", "kerasgen-field"]) == 0
