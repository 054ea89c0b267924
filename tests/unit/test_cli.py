# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: what it accepts, its exit codes, and what it loads."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lxc_cr_plugin import __version__, cli, commands, config, pending
from lxc_cr_plugin.commands import checkpoint, restart
from lxc_cr_plugin.errors import Cancelled, HostError, LxcCrError, StoreError, UsageError
from lxc_cr_plugin.in_use import hold
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.store import Image, Store
from tests.unit.images import add_image


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Options that keep a command away from the system's directories."""
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "none.toml")
    monkeypatch.setattr(cli, "refuse_user", lambda: None)
    file = tmp_path / "lxc-cr.toml"
    file.write_text(
        "".join(
            f'{key} = "{tmp_path / key}"\n' for key in ("store", "buffer_dir", "run_dir", "lxcpath")
        )
    )
    return ["--config", str(file)]


@pytest.fixture
def store(tmp_path):
    return Store(root=tmp_path / "store", buffer=tmp_path / "buffer_dir")


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def parse(*words):
    return vars(cli.parser().parse_args(words))


def test_checkpoint():
    given = parse("checkpoint", "web", "--stop", "--image", "web:x", "--buffered")
    assert given["run"] is checkpoint.run
    assert (given["name"], given["image"]) == ("web", "web:x")
    assert given["stop"] is given["buffered"] is True


@pytest.mark.parametrize(
    "words",
    [
        [], ["--help"], ["--version"], ["nothing", "ls"], ["--store"], ["--stor", "/x", "ls", "--nothing"],
        ["--json", "-P", "check", "ls", "--nothing"], ["import", "--help"], ["restore", "-h"],
        ["check"], ["--", "ls", "a", "b"], ["-Px", "ls", "a", "b"], ["ls", "--store"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_one_command_is_told_as_all_of_them_are(words, capsys):
    """A parser of the command that is given alone says of mistakes, and of help, what the whole one does."""

    def told(parser):
        with pytest.raises((SystemExit, UsageError)) as end:
            parser.parse_args(words)
        return str(end.value), getattr(end.value, "hint", None), *capsys.readouterr()

    assert told(cli.parser(cli.command_among(words))) == told(cli.parser())


def test_one_command_is_loaded_alone():
    assert cli.command_among(["--json", "--store", "ls", "import", "x"]) == ("import_",)
    assert cli.command_among(["restore", "x"]) == commands.NAMES


def test_every_command_is_listed():
    files = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert sorted(commands.NAMES) == sorted(files - {"__init__"})


@pytest.mark.parametrize("word", ["restart", "restore"])
def test_restart(word):
    assert parse(word, "web")["reference"] is None
    assert parse(word, "web", "web:x")["run"] is restart.run


@pytest.mark.parametrize(
    "words",
    [
        ("-P", "/x", "--json", "--debug", "check", "web"),
        ("check", "-P", "/x", "web", "--json", "--debug"),
        ("--json", "check", "web", "--lxcpath", "/x", "--debug"),
    ],
)
def test_options_before_and_after_the_command(words):
    given = parse(*words)
    assert (given["lxcpath"], given["json"], given["debug"]) == ("/x", True, True)


def test_the_help_lists_every_exit_code(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for error in LxcCrError.__subclasses__():
        assert f"{error.exit_code:>5}  {error.__doc__.rstrip('.')}" in text


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"lxc-cr {__version__}\n"


def test_the_version_is_said_twice_but_is_one():
    setup = (Path(__file__).parent.parent.parent / "setup.cfg").read_text()
    assert f"\nversion = {__version__}\n" in setup or "attr: lxc_cr_plugin" in setup


def test_not_root(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["ls"]) == HostError.exit_code
    assert capsys.readouterr().err == "lxc-cr: lxc-cr must run as root\nlxc-cr: Use sudo\n"


def test_a_bad_configuration(place, tmp_path, capsys):
    (tmp_path / "lxc-cr.toml").write_text("stoer = 1\n")
    assert cli.main([*place, "--json", "ls"]) == 2
    (event,) = events(capsys)
    assert event["event"] == "error"
    assert event["class"] == "UsageError"


def test_ls_of_nothing(place, capsys):
    assert cli.main([*place, "ls"]) == 0
    assert capsys.readouterr().out.startswith("CONTAINER")


def test_ls(place, store, capsys):
    image = add_image(store)
    assert cli.main([*place, "--json", "ls"]) == 0
    (event,) = events(capsys)
    assert event["event"] == "result"
    assert [row["digest"] for row in event["images"]] == [f"sha256:{image.digest}"]


def test_a_buffer_that_others_can_write_is_told_and_no_obstacle(place, store, tmp_path, capsys):
    add_image(store)
    (tmp_path / "buffer_dir").mkdir(mode=0o700)
    (tmp_path / "buffer_dir").chmod(0o777)
    assert cli.main([*place, "--json", "ls"]) == 0
    (warning,) = [event for event in events(capsys) if event.get("level") == "warning"]
    assert "only root can write" in warning["text"]
    assert cli.main([*place, "rm", "web"]) == 0


def test_rm(place, store, capsys):
    add_image(store, tag="one")
    add_image(store, tag="two", downtime=2)
    assert cli.main([*place, "rm", "web:one", "web:two"]) == 0
    assert store.images() == []
    assert cli.main([*place, "rm", "web:one"]) == 8
    assert "lxc-cr: There is no image 'web:one'" in capsys.readouterr().err


def test_rm_of_several_goes_on_after_a_failure(place, store, capsys):
    """Each failure is told, and the first gives the exit code; a mistake is seen before all."""
    add_image(store, tag="one")
    used = add_image(store, tag="used", downtime=5)
    words = ["web:used", "web:none", "web:one"]
    assert cli.main([*place, "rm", *words, "web:"]) == UsageError.exit_code
    assert len(store.images()) == 2
    capsys.readouterr()
    fd = hold(used.path)
    assert cli.main([*place, "rm", *words]) == StoreError.exit_code
    os.close(fd)
    assert store.images() == [used]
    output = capsys.readouterr()
    assert f"Image 'web@sha256:{used.digest[:12]}' is in use" in output.err
    assert "There is no image 'web:none'" in output.err
    assert output.out.startswith("Removed web@")


def test_an_image_in_use_is_passed_over(place, store, tmp_path, monkeypatch, capsys):
    """It is named, and it is no reason to leave the others too."""
    (tmp_path / "lxcpath" / "web").mkdir(parents=True)
    used = [add_image(store, tag=f"used{number}", downtime=number) for number in (1, 5)]
    fds = [hold(image.path) for image in used]
    monkeypatch.setenv("LXC_NAME", "web")
    monkeypatch.setenv("LXC_CONFIG_FILE", str(tmp_path / "lxcpath" / "web" / "config"))
    (tmp_path / "lxcpath" / "web" / "lxc-cr.toml").write_text('on_destroy = "remove"\n')
    for words in (["prune", "--keep-last", "0", "--tagged"], ["hook", "destroy"]):
        add_image(store, tag="one", downtime=3)
        assert cli.main([*place, *words]) == 0
        assert sorted(i.digest for i in store.images()) == sorted(i.digest for i in used)
        output = capsys.readouterr()
        for image in used:
            warning = f"warning: Image 'web@sha256:{image.digest[:12]}' is in use: it stays"
            assert warning in output.err
            assert image.digest[:12] not in output.out
    for fd in fds:
        os.close(fd)


def test_flush(place, store, capsys):
    add_image(store, buffered=True)
    assert cli.main([*place, "flush", "web"]) == 0
    assert "is in" in capsys.readouterr().out
    assert [image.buffered for image in store.images()] == [False]


def test_the_store_option_wins(place, tmp_path, capsys):
    other = Store(root=tmp_path / "other", buffer=tmp_path / "buffer_dir")
    add_image(other)
    assert cli.main([*place, "ls", "--store", str(tmp_path / "other")]) == 0
    assert "web" in capsys.readouterr().out


def test_an_unknown_container(place, capsys):
    assert cli.main([*place, "--json", "check", "no-such"]) == 3
    assert events(capsys)[-1]["message"].startswith("There is no container 'no-such' in ")


@pytest.mark.parametrize(
    "words", [["checkpoint", "no-such"], ["pending", "no-such"], ["repair", "no-such", "--keep"]]
)
def test_nothing_is_left_of_a_name_that_was_mistyped(words, place, tmp_path, capsys):
    assert cli.main([*place, *words]) == 3
    assert "There is no container 'no-such' in " in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.lock"))


def test_nothing_is_left_of_a_container_that_was_destroyed(place, store, tmp_path):
    add_image(store)
    assert cli.main([*place, "restart", "web"]) == 3
    assert not list((tmp_path / "run_dir").glob("*"))


@pytest.mark.parametrize("words", [["-P", "", "ls"], ["ls", "--lxcpath="], ["--store", "", "ls"]])
def test_an_empty_path_is_not_the_default(words, place, capsys):
    """It is what a script gives whose variable is not set."""
    assert cli.main([*place, *words]) == UsageError.exit_code
    assert "look whether the variable is set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_a_name_that_is_none(place, name):
    assert cli.main([*place, "check", name]) == 3


def test_a_new_image_with_a_digest(place, capsys):
    words = ["checkpoint", "web", "--image", "web@sha256:" + "0" * 8]
    assert cli.main([*place, *words]) == 2


def test_an_image_of_another_container(place):
    assert cli.main([*place, "restart", "web", "db:x"]) == 2


def test_a_bug_is_an_error_too(place, monkeypatch, capsys):
    monkeypatch.setattr(cli.Session, "store", lambda _self: 1 // 0)
    assert cli.main([*place, "--json", "ls"]) == 1
    assert events(capsys)[-1]["message"].startswith("Internal error: ZeroDivisionError")
    assert cli.main([*place, "--debug", "ls"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_limit_of_the_host_is_no_bug(place, monkeypatch, capsys):
    def open_one_more(_self):
        raise OSError(errno.EMFILE, "Too many open files", "/proc/sys")

    monkeypatch.setattr(cli.Session, "store", open_one_more)
    assert cli.main([*place, "--json", "ls"]) == HostError.exit_code
    error = events(capsys)[-1]
    assert error["message"] == "Too many open files"
    assert error["hint"]


def test_repair_comes_first(place, tmp_path, capsys):
    (tmp_path / "run_dir").mkdir(mode=0o700)
    freezer = tmp_path / "freezer.state"
    freezer.write_text("FROZEN")
    (tmp_path / "run_dir" / "web.json").write_text(
        json.dumps(
            {
                "operation": "checkpoint",
                "container": "web",
                "lxcpath": "/x",
                "pid": 1,
                "started": 0,
                "freezer": str(tmp_path),
            }
        )
    )
    assert cli.main([*place, "ls"]) == 0
    assert "Repaired container 'web'" in capsys.readouterr().err
    assert freezer.read_text() == "THAWED"


def imported(*words):
    """Which modules a command loads."""
    code = (
        "import sys\n"
        "from lxc_cr_plugin.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines())


def test_nothing_heavy_is_loaded_for_the_help():
    loaded = imported("--help")
    assert "lxc_cr_plugin.cli" in loaded
    heavy = {"lxc", "jsonschema", "cbor2", "xxhash", "pyroute2", "subprocess", "tomllib"}
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith("lxc_cr_plugin.native")}


@pytest.fixture
def listing(place, store):
    """A command with something to say."""
    for number in range(5):
        add_image(store, tag=f"t{number}", downtime=number)
    return [sys.executable, "-m", "lxc_cr_plugin", *place, "--json", "ls"]


def test_a_pipe_that_is_closed(listing):
    with subprocess.Popen(listing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


def test_a_disk_that_is_full(listing):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(listing, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == HostError.exit_code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [(0, 1, 2), (1,), (2,)])
def test_descriptors_that_are_closed(closed, listing, tmp_path):
    """What the command opens must not get their numbers."""
    script = shlex.join(listing) + "".join(f" {fd}>&-" for fd in closed)
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (1 in closed)


def test_a_disk_that_is_full_does_not_end_what_is_being_done():
    done = []

    def work():
        report.info("something")
        done.append(True)
        return 0

    err = io.StringIO()
    with open("/dev/full", "w") as full:  # noqa: PTH123
        report = Reporter(json_lines=True, out=full, err=err)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli, "refuse_user", lambda: None)
            assert cli.guarded(work, report) == HostError.exit_code
    assert done
    assert "Failed to write to standard output" in err.getvalue()


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["checkpoint"], ["rm"], ["inspect", "a", "b"], ["rm", "--what", "a"]]
)
def test_usage(words, capsys):
    assert cli.main(words) == UsageError.exit_code
    assert "--help` tells how it is called" in capsys.readouterr().err
    assert cli.main(["--json", *words]) == UsageError.exit_code
    assert events(capsys)[-1]["class"] == "UsageError"


@pytest.mark.parametrize("words", [["checkpoint", "web", "--image="], ["restart", "web", ""]])
def test_an_empty_reference_is_not_the_latest(words, place, capsys):
    assert cli.main([*place, *words]) == UsageError.exit_code
    assert "'' is not a reference to an image" in capsys.readouterr().err


def interrupt(*_):
    raise Cancelled("Interrupted by SIGINT")


@pytest.mark.parametrize("words", [["ls"], ["prune", "--keep-last", "1"]])
def test_a_signal_is_no_damage(words, place, store, monkeypatch, capsys):
    """Where the failure of one image is no reason to end, a signal is."""
    add_image(store)
    monkeypatch.setattr(Image, "manifest", interrupt)
    assert cli.main([*place, *words]) == Cancelled.exit_code
    assert "damaged" not in capsys.readouterr().out


def test_a_signal_while_marks_are_read(place, tmp_path, monkeypatch):
    container = tmp_path / "lxcpath" / "web"
    container.mkdir(parents=True)
    (container / pending.MARK).touch()
    monkeypatch.setattr(pending, "read", interrupt)
    assert cli.main([*place, "ls"]) == Cancelled.exit_code


# Control-C while the program is loaded: the first thing that it loads for the command sends it.
EARLY = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class Loading:
    def find_spec(self, name, *_):
        if name == "lxc_cr_plugin.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Loading())
from lxc_cr_plugin.__main__ import main
main()
"""


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_interrupted_before_it_has_begun(words):
    command = [sys.executable, "-c", EARLY, *words, "ls"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Cancelled.exit_code
    if words:
        assert done.stderr == ""
        assert json.loads(done.stdout) == {
            "event": "error",
            **Cancelled("Interrupted by SIGINT").as_json(),
        }
    else:
        assert (done.stdout, done.stderr) == ("", "lxc-cr: Interrupted by SIGINT\n")


# The same when the program as it is installed loads its n-th module; with n = 0 it only tells of them.
# What this loads it loads anyway.
EARLIER = """
import sys, _signal

class Loading:
    left = int(sys.argv.pop())
    tells = not left
    def find_spec(self, name, *_):
        if self.tells:
            print(name, file=sys.stderr)
        self.left -= 1
        if not self.left:
            _signal.raise_signal(_signal.SIGINT)

_signal.signal(_signal.SIGINT, _signal.default_int_handler)
script = compile(open(sys.argv[1]).read(), sys.argv[1], "exec")
del sys.argv[0]
sys.meta_path.insert(0, Loading())
exec(script, {"__name__": "__main__"})
"""


def test_interrupted_while_anything_is_loaded(place):
    """Quietly, or with a line of ours; a traceback only while Python itself begins."""

    def start(number):
        program = Path(sys.executable).parent / "lxc-cr"
        words = [sys.executable, "-c", EARLIER, program, *place, "ls", str(number)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    modules = start(0).communicate()[1].splitlines()
    assert "lxc_cr_plugin.store" in modules
    numbers = {1, 2, 3, 4, 5, 7, 12, 25, len(modules) // 2, len(modules) * 3 // 4}
    commands = {number: start(number) for number in sorted(numbers)}
    for number, command in commands.items():
        _, said = command.communicate()
        assert command.returncode in (-signal.SIGINT, Cancelled.exit_code), number
        assert said in ("", "lxc-cr: Interrupted by SIGINT\n"), number


# Another engine is found where ours should be.
STALE = """
import sys, types

sys.modules["lxc_cr_plugin.native._engine"] = %s
from lxc_cr_plugin.errors import HostError
try:
    import lxc_cr_plugin.native
except HostError as error:
    print(error, error.hint)
"""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("types.SimpleNamespace(ffi=None, lib=object())", "built from other sources"),
        ("None", "The engine does not load"),
    ],
)
def test_an_engine_that_does_not_belong_here(found, words):
    code = STALE % found
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert words in done.stdout
    assert "Build again: " in done.stdout


def test_a_signal_that_a_library_takes_for_an_error_of_its_own(capsys):
    def work():
        try:
            try:
                raise Cancelled("Interrupted by SIGTERM")
            except Cancelled as error:
                raise ValueError("no number") from error
        except ValueError as error:
            raise LxcCrError("That is not a number") from error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "refuse_user", lambda: None)
        assert cli.guarded(work, Reporter()) == Cancelled.exit_code
    assert "Interrupted by SIGTERM" in capsys.readouterr().err
