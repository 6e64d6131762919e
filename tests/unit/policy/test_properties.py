"""Properties of the policy: what nobody may be able to do by any policy, any file of a host, any request."""

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from fleet import policy
from fleet.contracts import Request, files, registry, shell
from fleet.contracts.verdicts import Decision
from fleet.policy import FleetPolicy, HostPolicy, Question, Verdict, paths_in
from fleet.policy.patterns import lies_below
from fleet.security.identity import Level
from tests.unit.policy.asking import fleets, hosts, run

STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}
REASONS = {"allowed", "needs_approval", "not_in_allow_list", "denied", "no_policy", "not_permitted", "switched_off"}
#: Few of each, so that what is made at random often meets.
NAMES = st.sampled_from(["a", "b", "c", "d"])
RISKS = st.sampled_from(["reads", "changes", "destroys", "executes"])
LABELS = st.dictionaries(st.sampled_from(["env", "zone"]), st.sampled_from(["prod", "lab"]), max_size=2)
WORDS = st.sampled_from(["-h", "7", "web", "/srv", "/srv/app", "/srv/app/x", "/etc/passwd", ""])
PATTERNS = WORDS | st.sampled_from(
    [
        {"enum": ["-h", "web"]},
        {"integer": [1, 9]},
        {"word": True},
        {"container": True},
        {"path": "/srv"},
        {"path": "/srv/app"},
    ]
)
DIRECTORIES = st.sampled_from(["/srv", "/srv/app", "/"])
LIMITS = st.sampled_from(["30s", "1m", "10m"])
STRICTER = st.sampled_from([None, None, None, "ask", "deny"])


def _said(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional).map(
        lambda made: {key: value for key, value in made.items() if value is not None}
    )


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    more = draw(
        _said(
            cwd=st.lists(DIRECTORIES, max_size=2),
            env=st.dictionaries(st.sampled_from(["LANG", "TZ"]), st.just(["C", "D"]), max_size=2),
            limit=LIMITS,
            labels=LABELS,
            decision=STRICTER,
        )
    )
    program = draw(st.sampled_from(["/bin/df", "/usr/bin/df", "/bin/ls"]))
    return {"name": draw(NAMES), "risk": draw(RISKS), "argv": [program, *draw(st.lists(PATTERNS, max_size=2))], **more}


@st.composite
def grants(draw: st.DrawFn) -> dict[str, Any]:
    may = draw(st.lists(st.sampled_from(["list", "get", "put"]), min_size=1, max_size=3, unique=True))
    more = draw(_said(most_bytes=st.integers(0, 20), labels=LABELS, decision=STRICTER))
    return {"name": f"f{draw(NAMES)}", "root": draw(DIRECTORIES), "may": may, **more}


@st.composite
def rules(draw: st.DrawFn, decisions: tuple[str, ...] = ("allow", "ask", "deny")) -> dict[str, Any]:
    levels = st.lists(st.sampled_from([level.value for level in Level]), min_size=1, max_size=2)
    tasks = st.lists(st.sampled_from(["fleet.shell.run", "fleet.containers.stop"]), min_size=1, max_size=2)
    principals = st.lists(st.sampled_from(["bob", "alice"]), min_size=1, max_size=1)
    said = _said(
        levels=levels, risks=st.lists(RISKS, min_size=1, max_size=2), labels=LABELS, principals=principals, tasks=tasks
    )
    return {"name": f"r{draw(NAMES)}", "decision": draw(st.sampled_from(decisions)), **draw(said)}


def _unique(made: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(made, max_size=3, unique_by=lambda each: each["name"])


FLEETS = st.fixed_dictionaries({"commands": _unique(commands()), "files": _unique(grants()), "rules": _unique(rules())})
HOSTS = _said(
    shell=st.sampled_from([None, None, {"enabled": False}]),
    commands=_unique(commands()),
    files=_unique(grants()),
    rules=_unique(rules(("ask", "deny"))),
)
TEXT = st.text(max_size=12)
Situation = tuple[Question, dict[str, Any], dict[str, Any]]


@st.composite
def questions(draw: st.DrawFn, fleet: dict[str, Any]) -> Question:
    """Return what somebody may ask for: mostly what an entry lists, else anything, also what no contract takes."""
    entries = [*fleet["commands"], *fleet["files"]]
    entry = draw(st.sampled_from([*entries, *entries, None]))
    contract, request = draw(_fitting(entry) if entry else _anything())
    labels = draw(LABELS)
    return Question(
        principal=draw(st.sampled_from(["bob", "alice"]) | TEXT),
        level=draw(st.sampled_from(list(Level))),
        labels={**labels, **entry.get("labels", {})} if entry and draw(st.booleans()) else labels,
        contract=contract,
        request=request,
        limit_seconds=draw(st.sampled_from([None, 1.0, 20.0, 45.0, 500.0]) | st.floats()),
    )


@st.composite
def _fitting(draw: st.DrawFn, entry: dict[str, Any]) -> tuple[Any, Request]:
    """Return a request that an entry lists, so far as arguments and paths go."""
    if "root" in entry:
        path = draw(st.sampled_from([entry["root"], f"{entry['root'].rstrip('/')}/x"]))
        made: dict[str, tuple[Any, Request]] = {
            "list": (files.LIST, files.ListFiles.model_construct(path=path)),
            "get": (files.GET, files.GetFile.model_construct(path=path)),
            "put": (files.PUT, files.PutFile.model_construct(path=path, content=draw(st.sampled_from(["", "YQ=="])))),
        }
        return made[draw(st.sampled_from(entry["may"]))]
    cwd = draw(st.sampled_from([None, None, *entry.get("cwd", [])]))
    env = {name: draw(st.sampled_from(["C", "D"])) for name in entry.get("env", {}) if draw(st.booleans())}
    argv = tuple(draw(_filled(pattern)) for pattern in entry["argv"])
    return shell.RUN, shell.RunCommand.model_construct(argv=argv, cwd=cwd, env=env)


def _filled(pattern: Any) -> st.SearchStrategy[str]:
    match pattern:
        case str():
            return st.just(pattern)
        case {"enum": texts}:
            return st.sampled_from(texts)
        case {"integer": [least, most]}:
            return st.integers(least, most).map(str)
        case {"path": root}:
            return st.sampled_from([root, f"{root}/app", f"{root}/app/x"])
    return st.just("web")


@st.composite
def _anything(draw: st.DrawFn) -> tuple[Any, Request]:
    argv = tuple(draw(st.lists(WORDS | TEXT, max_size=3)))
    env = draw(st.dictionaries(st.sampled_from(["LANG"]) | TEXT, TEXT, max_size=2))
    path, content = draw(WORDS | TEXT), draw(TEXT)
    made: list[tuple[Any, Request]] = [
        (shell.RUN, shell.RunCommand.model_construct(argv=argv, cwd=draw(st.none() | DIRECTORIES | TEXT), env=env)),
        (files.LIST, files.ListFiles.model_construct(path=path)),
        (files.GET, files.GetFile.model_construct(path=path)),
        (files.PUT, files.PutFile.model_construct(path=path, content=content)),
        (registry.get("fleet.containers.stop"), Request()),
        (shell.RUN, Request()),
    ]
    return draw(st.sampled_from(made))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Question, dict[str, Any], dict[str, Any]]:
    """Return a question, the fleet's policy, and the file of a host's owner, which often lists the same otherwise."""
    fleet, host = draw(FLEETS), draw(HOSTS)
    for section, changed in (("commands", _said(limit=LIMITS, risk=RISKS)), ("files", _said(root=st.just("/")))):
        if section in host and draw(st.booleans()):
            host[section] = [{**each, **draw(changed)} for each in fleet[section]]
    return draw(questions(fleet)), fleet, host


SITUATIONS = situations()


def judge(question: Question, fleet: FleetPolicy | None, host: HostPolicy) -> Verdict:
    return policy.decide(question, fleet=fleet, host=host)


@given(situation=SITUATIONS, known=st.booleans())
def test_every_question_has_an_answer(situation: Situation, *, known: bool) -> None:
    question, fleet, host = situation
    verdict = judge(question, fleets(**fleet) if known else None, hosts(**host))
    assert verdict.reason in REASONS
    assert 0 < len(verdict.rule) <= 500
    assert (verdict.decision == "allow") == (verdict.reason == "allowed")
    assert (verdict.decision == "ask") == (verdict.reason == "needs_approval")
    granted = (verdict.command is not None) + (verdict.file is not None)
    assert granted == (question.contract.governed and verdict.decision != "deny")


@given(SITUATIONS)
def test_what_is_granted_is_what_was_asked_for(situation: Situation) -> None:
    question, fleet, host = situation
    verdict = judge(question, fleets(**fleet), hosts(**host))
    request = question.request
    if verdict.command is not None:
        assert isinstance(request, shell.RunCommand)
        assert verdict.command.lists(request.argv)
        assert verdict.command.lacks(request, limit_seconds=question.limit_seconds) == ""
        assert question.limit_seconds is None or question.limit_seconds <= verdict.command.limit_seconds
        assert all(lies_below(request.argv[index], root) for index, root in paths_in(verdict.command, request.argv))
    if verdict.file is not None:
        assert isinstance(request, files.ListFiles | files.GetFile | files.PutFile)
        assert verdict.file.lists(request)
        assert verdict.file.lacks(request) == ""


@given(SITUATIONS)
def test_a_hosts_file_never_widens(situation: Situation) -> None:
    question, fleet, host = situation
    without, narrowed = judge(question, fleets(**fleet), HostPolicy()), judge(question, fleets(**fleet), hosts(**host))
    assert STRICTNESS[narrowed.decision] >= STRICTNESS[without.decision]
    if narrowed.command is not None:
        assert without.command is not None
        assert narrowed.command.program == without.command.program
        assert narrowed.command.limit_seconds <= without.command.limit_seconds
        assert set(narrowed.command.cwd) <= set(without.command.cwd)
        # without any, both are run in "/"; a command is never moved to where it was not granted
        assert next(iter(narrowed.command.cwd), "/") in (without.command.cwd or ("/",))
        assert narrowed.command.env.items() <= without.command.env.items()
    if narrowed.file is not None:
        assert without.file is not None
        assert lies_below(narrowed.file.root, without.file.root)
        assert set(narrowed.file.may) <= set(without.file.may)
        assert narrowed.file.most_bytes <= without.file.most_bytes


@given(SITUATIONS)
def test_what_runs_is_a_program_that_the_hosts_own_list_has(situation: Situation) -> None:
    question, fleet, host = situation
    file = hosts(**host)
    verdict = judge(question, fleets(**fleet), file)
    if verdict.command is not None and file.commands is not None:
        assert isinstance(question.request, shell.RunCommand)
        argv = (verdict.command.program, *question.request.argv[1:])
        assert any(own.program == argv[0] and own.lists(argv) for own in file.commands)


@given(SITUATIONS)
def test_who_asks_for_more_gets_out_of_nothing(situation: Situation) -> None:
    question, fleet, host = situation
    assume(isinstance(question.request, shell.RunCommand))
    plain = replace(question, request=question.request.model_copy(update={"cwd": None, "env": {}}), limit_seconds=None)
    less, more = (judge(each, fleets(**fleet), hosts(**host)) for each in (plain, question))
    assume(less.reason != "not_in_allow_list")  # such as for a directory that the two share, and nobody has named
    assert STRICTNESS[more.decision] >= STRICTNESS[less.decision]


@given(situation=SITUATIONS, is_hosts=st.booleans())
def test_a_rule_about_any_entry_that_lists_a_request_counts(situation: Situation, *, is_hosts: bool) -> None:
    question, fleet, host = situation
    request = question.request
    if isinstance(request, shell.RunCommand):
        about = [each for each in fleets(**fleet).commands if each.lists(request.argv)]
    else:
        assume(isinstance(request, files.ListFiles | files.GetFile | files.PutFile))
        about = [each for each in fleets(**fleet).files if each.lists(request)]
    for entry in about:
        if entry.holds_on(question.labels):
            denying = {"name": "one more", "decision": "deny", "commands": [entry.name]}
            there = host if is_hosts else fleet
            ruled = {**there, "rules": [*there.get("rules", []), denying]}
            pair = (fleets(**fleet), hosts(**ruled)) if is_hosts else (fleets(**ruled), hosts(**host))
            assert judge(question, *pair).decision == "deny"


@given(SITUATIONS, rules(("deny",)), st.integers(0, 3))
def test_a_rule_more_that_denies_never_allows_more(situation: Situation, more: dict[str, Any], place: int) -> None:
    question, fleet, host = situation
    before = judge(question, fleets(**fleet), hosts(**host))
    added = [*fleet["rules"]]
    added.insert(place, {**more, "name": "one more"})
    after = judge(question, fleets(**{**fleet, "rules": added}), hosts(**host))
    assert STRICTNESS[after.decision] >= STRICTNESS[before.decision]


@given(SITUATIONS, st.tuples(commands(), grants()), st.integers(0, 3))
def test_an_entry_more_that_denies_never_allows_more(
    situation: Situation, more: tuple[dict[str, Any], dict[str, Any]], place: int
) -> None:
    question, fleet, host = situation
    before = judge(question, fleets(**fleet), hosts(**host))
    listed, granted = [*fleet["commands"]], [*fleet["files"]]
    command, grant = more
    listed.insert(place, {**command, "name": "one more", "decision": "deny"})
    granted.insert(place, {**grant, "name": "and another", "decision": "deny"})
    after = judge(question, fleets(**{**fleet, "commands": listed, "files": granted}), hosts(**host))
    assert STRICTNESS[after.decision] >= STRICTNESS[before.decision]


@given(SITUATIONS, rules(("ask", "deny")))
def test_a_rule_more_of_a_host_never_allows_more(situation: Situation, more: dict[str, Any]) -> None:
    question, fleet, host = situation
    ruled = {**host, "rules": [*host.get("rules", []), {**more, "name": "one more"}]}
    before, after = (judge(question, fleets(**fleet), hosts(**each)) for each in (host, ruled))
    assert STRICTNESS[after.decision] >= STRICTNESS[before.decision]


@given(SITUATIONS)
def test_what_only_asks_and_denies_never_allows(situation: Situation) -> None:
    question, fleet, _ = situation
    assume(question.contract.governed)
    asking = [{**each, "decision": each.get("decision") or "ask"} for each in fleet["commands"]]
    granted = [{**each, "decision": each.get("decision") or "ask"} for each in fleet["files"]]
    verdict = judge(question, fleets(**{**fleet, "commands": asking, "files": granted}), HostPolicy())
    assert verdict.decision != "allow"


LITERAL = ("/usr/bin/systemctl", "restart", "--", "nginx")
EXACT = fleets(commands=[{"name": "it", "risk": "reads", "argv": list(LITERAL)}])
#: What looks like another character, ends a line or a word, or means something to a shell.
LOOKALIKES = st.sampled_from([*list("\n\r\t\x00 \xa0\u200b\u202e;&|$`'\"\\*?[{~#-/."), "ｎ", "ɡ", "а", "�", "０"])


@given(st.data())
def test_nothing_but_the_very_arguments_matches_an_entry_of_literals(data: st.DataObject) -> None:
    argv = list(data.draw(st.sampled_from([LITERAL, ("systemctl", *LITERAL[1:])])))
    character = data.draw(LOOKALIKES | st.characters())
    index = data.draw(st.integers(0, len(argv) - 1))
    word = argv[index]
    place = data.draw(st.integers(0, len(word)))
    match data.draw(st.sampled_from(["insert", "replace", "remove", "one more", "one less", "twice", "swap", "join"])):
        case "insert":
            argv[index] = word[:place] + character + word[place:]
        case "replace":
            argv[index] = word[:place] + character + word[place + 1 :]
        case "remove":
            argv[index] = word[:place] + word[place + 1 :]
        case "one more":
            argv.insert(index, character)
        case "one less":
            del argv[index]
        case "twice":
            argv.insert(index, word)
        case "swap":
            other = data.draw(st.integers(0, len(argv) - 1))
            argv[index], argv[other] = argv[other], argv[index]
        case _:
            argv[index : index + 2] = [" ".join(argv[index : index + 2])]
    assume(tuple(argv) not in {LITERAL, ("systemctl", *LITERAL[1:])})
    assert run(argv, EXACT).reason == "not_in_allow_list"


def test_deny_is_stricter_than_ask_and_ask_than_allow() -> None:
    ordered = sorted(STRICTNESS, key=lambda each: STRICTNESS[each])
    for number, one in enumerate(ordered):
        for other_number, other in enumerate(ordered):
            assert Decision(one).is_stricter_than(Decision(other)) == (number > other_number)
