"""With the hook, a checkpoint loads without our import; without it, PEFT raises a KeyError."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

import peft_autoconfig
from peft_autoconfig import SerialAdapterConfig
from peft_autoconfig.errors import ConfigError
from peft_autoconfig.exchange import hook

from ..conftest import tiny_bert

REPOSITORY = Path(peft_autoconfig.__file__).parent.parent


class Environment:
    """A virtual environment of its own, which sees chosen folders of modules."""

    def __init__(self, folder, visible):
        venv.create(folder, with_pip=False)
        scheme = {"base": str(folder), "platbase": str(folder)}
        self.site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        bin_folder = Path(sysconfig.get_path("scripts", "venv", scheme))
        self.python = bin_folder / Path(sys.executable).name
        if not self.python.exists():
            self.python = bin_folder / "python"
        self.see(visible)

    def see(self, visible):
        paths = "".join(f"{path}\n" for path in visible)
        (self.site_packages / "visible.pth").write_text(paths, encoding="utf-8")

    def run(self, *arguments, check=True):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return subprocess.run(
            [self.python, *arguments],
            capture_output=True,
            text=True,
            check=check,
            cwd=self.site_packages,
            env={**kept, "HF_HUB_OFFLINE": "1"},
        )

    def files(self):
        return sorted(path.name for path in self.site_packages.iterdir() if "hook" in path.name)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """An environment with the hook and a `peft` and `peft_autoconfig` of two lines each."""
    modules = tmp_path / "modules"
    for name, code in {
        "peft": "import sys\nNAME = 'peft'\nOURS_FIRST = 'peft_autoconfig' in sys.modules\n",
        "peft_autoconfig": "from peft import NAME\n",
    }.items():
        (modules / name).mkdir(parents=True)
        (modules / name / "__init__.py").write_text(code, encoding="utf-8")
    (modules / "peft" / "utils.py").write_text("", encoding="utf-8")
    environment = Environment(tmp_path / "venv", [modules])
    environment.modules = modules
    monkeypatch.setattr(hook, "_site_packages", lambda: environment.site_packages)
    hook.install()
    return environment


@pytest.mark.parametrize(
    "statement", ["import peft", "from peft import utils", "import peft.utils"]
)
def test_our_package_comes_right_after_peft(quick, statement):
    code = (
        f"import sys; before = 'peft_autoconfig' in sys.modules; {statement}; import peft;"
        "print(before, peft.OURS_FIRST, 'peft_autoconfig' in sys.modules,"
        "type(peft.__loader__).__name__, peft.__spec__.loader is peft.__loader__)"
    )
    done = quick.run("-c", code)
    assert done.stdout.split() == ["False", "False", "True", "SourceFileLoader", "True"]
    assert done.stderr == ""


def test_our_package_may_come_first(quick):
    done = quick.run("-c", "import peft_autoconfig, peft; print(peft_autoconfig.NAME)")
    assert (done.stdout, done.stderr) == ("peft\n", "")


def test_looking_for_peft_imports_nothing(quick):
    code = (
        "import sys; from importlib.util import find_spec; spec = find_spec('peft');"
        "print(spec.loader.get_source('peft').count('NAME'), 'peft' in sys.modules)"
    )
    done = quick.run("-c", code)
    assert done.stdout.split() == ["1", "False"]


def test_a_peft_that_fails_can_be_imported_again(quick):
    (quick.modules / "peft" / "__init__.py").write_text(
        "import sys\nsys.tries = getattr(sys, 'tries', 0) + 1\nassert sys.tries > 1\nNAME = 1\n"
    )
    code = (
        "import sys\ntry: import peft\nexcept AssertionError: import peft\n"
        "print('peft_autoconfig' in sys.modules)"
    )
    assert quick.run("-c", code).stdout == "True\n"


def test_nothing_happens_once_our_package_is_uninstalled(quick):
    (quick.modules / "peft_autoconfig" / "__init__.py").unlink()
    (quick.modules / "peft_autoconfig").rmdir()
    done = quick.run("-c", "import peft; print(peft.NAME)")
    assert (done.stdout, done.stderr) == ("peft\n", "")


def test_nothing_happens_without_peft(quick):
    (quick.modules / "peft" / "utils.py").unlink()
    (quick.modules / "peft" / "__init__.py").unlink()
    (quick.modules / "peft").rmdir()
    done = quick.run("-c", "import peft", check=False)
    assert "ModuleNotFoundError: No module named 'peft'" in done.stderr


def test_peft_works_even_if_our_package_does_not(quick):
    (quick.modules / "peft_autoconfig" / "__init__.py").write_text("import of_no_such_name\n")
    done = quick.run("-c", "import peft; print(peft.NAME)")
    assert done.stdout == "peft\n"
    assert "hook" in done.stderr
    assert "of_no_such_name" in done.stderr


def test_a_start_is_silent_when_the_module_was_deleted_alone(quick):
    (quick.site_packages / hook.FINDER).unlink()
    done = quick.run("-c", "import peft; print(peft.NAME)")
    assert (done.stdout, done.stderr) == ("peft\n", "")


def test_a_start_imports_no_more_than_before(quick):
    code = "import sys; print(*sorted(sys.modules))"
    with_hook = set(quick.run("-c", code).stdout.split())
    assert quick.files() == [hook.FINDER, hook.PTH]
    hook.uninstall()
    assert quick.files() == []
    without = set(quick.run("-c", code).stdout.split())
    assert with_hook - without == {hook.MODULE}


def test_a_checkpoint_loads_without_our_import(tmp_path):
    torch.manual_seed(0)
    tiny_bert().save_pretrained(tmp_path / "base")
    config = SerialAdapterConfig(bottleneck_size=2, task_type="FEATURE_EXTRACTION")
    model = get_peft_model(tiny_bert().from_pretrained(tmp_path / "base"), config)
    model.save_pretrained(tmp_path / "adapter")
    visible = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), REPOSITORY]
    environment = Environment(tmp_path / "venv", dict.fromkeys(visible))
    load = (
        "from peft import AutoPeftModelForFeatureExtraction as Auto;"
        f"print(type(Auto.from_pretrained({str(tmp_path / 'adapter')!r}).base_model).__name__)"
    )
    without = environment.run("-c", load, check=False)
    assert without.stderr.rstrip().endswith("KeyError: 'AUTOPEFT_SERIAL'")

    command = ("-m", "peft_autoconfig.exchange.hook")
    assert "hook installed in" in environment.run(*command, "install").stderr
    assert environment.files() == [hook.FINDER, hook.PTH]
    assert environment.run("-c", load).stdout == "SerialAdapterModel\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A prefix with site-packages, which the module takes for those of the running Python."""
    folder = tmp_path / "env" / "site-packages"
    folder.mkdir(parents=True)
    paths = {"purelib": str(folder), "stdlib": str(tmp_path / "stdlib")}
    (tmp_path / "stdlib").mkdir()
    monkeypatch.setattr(hook.sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setattr(hook.sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr(hook.sys, "base_prefix", str(tmp_path))
    return folder


def test_install_and_uninstall_may_be_called_again(site):
    assert hook.status().state == "absent"
    for _ in range(2):
        assert hook.install() == hook.HookStatus("installed", site)
        assert {file.name for file in site.iterdir()} == {hook.FINDER, hook.PTH}
    for _ in range(2):
        assert hook.uninstall().state == "absent"
        assert not list(site.iterdir())


@pytest.mark.parametrize("name", [hook.FINDER, hook.PTH])
def test_an_old_hook_is_brought_up_to_date(site, name):
    hook.install()
    (site / name).write_text(f"# older\n{hook.MARKS[name]}\n", encoding="utf-8")
    assert hook.status().state == "outdated"
    assert hook.install().state == "installed"
    (site / name).unlink()
    assert hook.status().state == "outdated"


@pytest.mark.parametrize("action", [hook.install, hook.uninstall])
@pytest.mark.parametrize("content", [b"somebody's", b"\xff\xfe"])
@pytest.mark.parametrize("name", [hook.FINDER, hook.PTH])
def test_files_of_others_are_left_alone(site, name, content, action):
    (site / name).write_bytes(content)
    with pytest.raises(ConfigError, match="not of peft_autoconfig"):
        action()
    assert {file.name: file.read_bytes() for file in site.iterdir()} == {name: content}


def test_a_link_out_of_the_environment_is_not_followed(site, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text("class PeftFinder: ...\n", encoding="utf-8")
    (site / hook.FINDER).symlink_to(outside)
    with pytest.raises(ConfigError, match="not of peft_autoconfig"):
        hook.install()
    assert outside.read_text(encoding="utf-8") == "class PeftFinder: ...\n"


def test_nothing_is_written_outside_the_environment(site, tmp_path, monkeypatch):
    monkeypatch.setattr(hook.sys, "prefix", str(tmp_path / "elsewhere"))
    for action in (hook.install, hook.uninstall):
        with pytest.raises(ConfigError, match="must lie in the environment"):
            action()
    assert not list(site.iterdir())


def test_the_python_of_the_system_is_left_alone(site, tmp_path, monkeypatch):
    monkeypatch.setattr(hook.sys, "base_prefix", hook.sys.prefix)
    (tmp_path / "stdlib" / "EXTERNALLY-MANAGED").touch()
    with pytest.raises(ConfigError, match="belongs to the operating system"):
        hook.install()
    assert not list(site.iterdir())


def test_a_folder_that_cannot_be_written_is_named(site):
    site.rmdir()
    site.touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        hook.install()
