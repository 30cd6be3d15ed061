"""The package declares what it holds."""

from kerasgen.cli import main


def test_kerasgen_loads_every_plugin_of_the_package() -> None:
    """If this fails with "No package", install the package first: pip install -e ."""
    assert main(["plugins", "check", "kerasgen-placeholder"]) == 0
