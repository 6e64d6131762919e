"""Patterns: exact, whole, and as written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleet.contracts.containers import ContainerRef
from fleet.policy import environment, patterns
from tests.unit.policy.asking import command, fleets, run

CONTAINER: TypeAdapter[str] = TypeAdapter(ContainerRef)
ANY_ARGUMENT = st.text(max_size=40) | st.text("abc/.-_:@0123 \n\0", max_size=20)
OTHER_THAN_TEXT = [{"integer": [0, 9]}, {"container": True}, {"word": True}, {"path": "/"}, {"path": "/srv"}]


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("-h", ["-h"], ["-H", "-h ", " -h", "-h\n", "h", "-hh", "－h", "-h\0", ""]),
        ("", [""], [" ", "\n"]),
        ({"enum": ["start", "-q"]}, ["start", "-q"], ["Start", "start ", "star", "start,-q", "stärt", ""]),
        (
            {"integer": [0, 100]},
            ["0", "7", "100"],
            ["101", "-1", "+7", "07", "00", "7.0", "7 ", "1e1", "", "٧", "７", "0x7", "1_0", "7\n", "9" * 5000],
        ),
        ({"integer": [5, 5]}, ["5"], ["4", "6", "05"]),
        (
            {"container": True},
            ["web", "web-1", "a" * 128, "0123abcd", "a.b_c-d"],
            ["-web", ".web", "web\n", "we b", "web;id", "a" * 129, "wéb", "ｗeb", "", "a/b", "$(id)"],
        ),
        (
            {"word": True},
            ["nginx", "user@host", "a:b", "1.2.3", "A" * 128],
            ["-v", "--help", "a b", "a/b", "a\n", "ä", "Ａ", "", "a,b", "a=b", "A" * 129, "$(id)", "`id`", "a;b"],
        ),
        (
            {"path": "/srv"},
            ["/srv", "/srv/a", "/srv/a b/c", "/srv/-x", "/srv/ü", "/srv/..a", "/srv/a."],
            [
                *(
                    "/srvx",
                    "/srv/",
                    "/srv//a",
                    "/srv/.",
                    "/srv/..",
                    "/srv/../etc",
                    "/srv/a/../../etc",
                    "/srv/./a",
                    "srv",
                ),
                *(
                    "",
                    "/",
                    "/etc",
                    "//srv",
                    "/srv/a\n",
                    "/srv/\x07",
                    "/srv/\x85",
                    "/srv/\0",
                    "-/srv",
                    "/SRV",
                    "/srv/\ud800",
                ),
                *("\u2215srv", "/srv/" + "a" * 4096),
            ],
        ),
        ({"path": "/"}, ["/", "/etc", "/a/b"], ["", "a", "/a/", "//", "/.."]),
    ],
)
def test_a_pattern_is_what_it_says_and_nothing_that_looks_like_it(
    pattern: Any, good: list[str], bad: list[str]
) -> None:
    found = patterns.read(pattern)
    assert [each for each in good if not found.matches(each)] == []
    assert [each for each in bad if found.matches(each)] == []


@given(ANY_ARGUMENT)
def test_what_begins_with_a_dash_is_only_what_stands_there(argument: str) -> None:
    for pattern in OTHER_THAN_TEXT:
        assert not patterns.read(pattern).matches(f"-{argument}")


@given(ANY_ARGUMENT)
def test_a_container_is_what_the_contracts_take_for_one(argument: str) -> None:
    try:
        expected = CONTAINER.validate_python(argument) == argument
    except ValidationError:
        expected = False
    assert patterns.AnyContainer().matches(argument) == expected


@given(ANY_ARGUMENT, st.sampled_from(["/srv", "/", "/srv/app"]))
def test_a_path_below_a_root_never_leaves_it(argument: str, root: str) -> None:
    for path in (argument, f"{root}/{argument}", f"/{argument}"):
        if patterns.lies_below(path, root):
            assert path == root or path.startswith(root.rstrip("/") + "/")
            assert not {"", ".", ".."} & set(path[1:].split("/")) or path == "/"


def test_a_list_of_a_variable_is_one_of_its_texts() -> None:
    found = patterns.read_variable(["C", "de_DE.UTF-8"])
    assert found.matches("C")
    assert not found.matches("c")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "path",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "BASH_ENV",
            "ENV",
            "IFS",
        ),
        *(
            "SHELLOPTS",
            "BASHOPTS",
            "PS4",
            "PROMPT_COMMAND",
            "BASH_FUNC_ls",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONHOME",
        ),
        *("PERL5LIB", "PERL5OPT", "PERL5DB", "RUBYOPT", "RUBYLIB", "NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS"),
        *("_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH"),
        *("SSH_ASKPASS", "SSH_AUTH_SOCK", "DOCKER_CONFIG", "DOCKER_HOST", "PAGER", "MANPAGER", "SYSTEMD_PAGER", "LESS"),
        *(
            "LESSOPEN",
            "LESSCLOSE",
            "EDITOR",
            "VISUAL",
            "SUDO_EDITOR",
            "SYSTEMD_EDITOR",
            "BROWSER",
            "GCONV_PATH",
            "LOCPATH",
        ),
        *("NLSPATH", "HOSTALIASES", "TMPDIR", "HOME", "SHELL", "FLEET_BROKER_URL", "SYSTEMD_LESS", "TAR_OPTIONS"),
        *(
            "GREP_OPTIONS",
            "RSYNC_RSH",
            "CVS_RSH",
            "MAKEFLAGS",
            "AWKPATH",
            "AWKLIBPATH",
            "OPENSSL_CONF",
            "OPENSSL_ENGINES",
        ),
        *("GLIBC_TUNABLES", "MALLOC_TRACE", "RES_OPTIONS", "LOCALDOMAIN", "TERMINFO", "TERMCAP", "XDG_CONFIG_HOME"),
        *("KUBECONFIG", "AWS_CONFIG_FILE", "WGETRC", "CURL_HOME", "npm_config_shell", "pip_index_url", "GOFLAGS"),
        *("RUSTC_WRAPPER", "ZDOTDIR", "PHP_INI_SCAN_DIR", "LUA_INIT", "GTK_MODULES", "QT_PLUGIN_PATH", "MAVEN_OPTS"),
        *(
            "ASAN_OPTIONS",
            "SSLKEYLOGFILE",
            "DEBUGINFOD_URLS",
            "PSQL_EDITOR",
            "DBUS_SESSION_BUS_ADDRESS",
            "SUDO_ASKPASS",
        ),
        *("RIPGREP_CONFIG_PATH", "MAILRC", "BAT_CONFIG_PATH", "BAT_CONFIG_DIR", "PARALLEL", "PARALLEL_SHELL"),
        *("PARALLEL_HOME", "PARALLEL_SSH", "CCACHE_PREFIX", "CCACHE_PREFIX_CPP", "CCACHE_COMPILER"),
    ],
)
def test_a_variable_by_which_programs_run_others_cannot_be_granted(name: str) -> None:
    assert environment.is_dangerous(name)
    with pytest.raises(ValueError, match=f"{name} cannot be granted"):
        fleets(commands=[command("/bin/df", env={name: "x"})])


@pytest.mark.parametrize(
    "name", ["LANG", "LC_ALL", "LANGUAGE", "TZ", "TERM", "COLUMNS", "NO_COLOR", "LEVEL", "APP_MODE"]
)
def test_a_harmless_variable_can_be_granted(name: str) -> None:
    listed = fleets(commands=[command("/bin/df", env={name: ["x", "y"]})])
    assert run(["df"], listed, env={name: "y"}).decision == "allow"
    assert run(["df"], listed, env={name: "z"}).reason == "not_in_allow_list"
