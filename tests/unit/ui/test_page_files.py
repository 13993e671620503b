import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muybridge.api.schema import request_schema
from muybridge.ui import page_folder

PAGE = page_folder()
HTML = (PAGE / "index.html").read_text("utf-8")
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted((PAGE / "js").glob("*.js"))}
WORDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((PAGE / "lang").glob("*.json"))}


def test_every_language_has_the_same_words() -> None:
    assert set(WORDS) == {"en", "zh-CN"}
    # Hints come from the schema, in English; another language may have its own.
    of = {name: {key for key in words if not key.startswith("hint.")} for name, words in WORDS.items()}
    assert of["en"] == of["zh-CN"]
    for words in WORDS.values():
        assert all(text.strip() for text in words.values())


def names_in(constant: str) -> set[str]:
    """What a set of names in the script of the form holds."""
    return set(
        re.findall(r'"([\w.-]+)"', SCRIPTS["schema_form.js"].partition(f"{constant} = new Set(")[2].partition(")")[0])
    )


def described(path: str, field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields below a place, with what the schema says of them."""
    kinds = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
    found = {**(kinds[0] if kinds else {}), **field}
    found = {**definitions.get(found.get("$ref", "").rpartition("/")[2], {}), **found}
    yield path, found.get("description", "")
    for name, each in found.get("properties", {}).items():
        yield from described(f"{path}.{name}", each, definitions)


def sentences_of_the_form() -> dict[str, str]:
    """What the schema says of every field that the page makes from it."""
    schema, elsewhere = request_schema(), names_in("SHOWN_ELSEWHERE") | names_in("OF_THE_SERVICE")
    found: dict[str, str] = {}
    for name, field in schema["request"]["properties"].items():
        if name in elsewhere:
            continue
        (top, said), *inner = described(name, field, schema["request"]["$defs"])
        found |= dict(inner) if inner else {top: said}
    for kind, own in schema["conditions"].items():
        if kind not in names_in("CONDITIONS_ELSEWHERE") and kind != "known-latents":  # in memory only
            found |= dict(described(f"conditions.{kind}", own, {}))
    return {path: said for path, said in found.items() if said and path not in elsewhere}


def test_what_is_said_of_every_field_is_there_in_every_language() -> None:
    found = sentences_of_the_form()
    assert "sampling.windows.fusing" in found
    assert "conditions.control.strength" in found
    assert {path for path in found if f"hint.{path}" not in WORDS["zh-CN"]} == set()


def test_nothing_is_said_of_paths_and_objects_that_a_service_does_not_take() -> None:
    for path, said in sentences_of_the_form().items():
        assert not re.search(r"on the hub|folder|[Pp]illow|uint8|a file", WORDS["en"].get(f"hint.{path}", said)), path


def test_words_of_every_language_have_the_same_places_to_fill() -> None:
    for key in WORDS["en"]:
        places = [set(re.findall(r"\{(\w+)\}", words[key])) for words in WORDS.values()]
        assert places[0] == places[1], key


def test_all_words_that_are_asked_for_are_there() -> None:
    asked = set(re.findall(r'data-i18n(?:-\w+)?="([^"]+)"', HTML))
    for text in SCRIPTS.values():
        asked |= set(re.findall(r'\bt\(\s*"([^"]+)"', text))
        for condition in re.findall(r"\bt\(([^()`]*\?[^()`]*)\)", text):
            asked |= set(re.findall(r'"([a-z-]+(?:\.[a-z-]+)*)"', condition.partition("?")[2]))

    assert asked - set(WORDS["en"]) == set()


def test_nothing_comes_from_another_host_and_nothing_is_inline() -> None:
    for path in PAGE.rglob("*"):
        if path.suffix in {".html", ".css", ".js", ".svg"}:
            addresses = re.findall(
                r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", re.sub(r"(?m)^\s*//.*$", "", path.read_text("utf-8"))
            )
            assert [each for each in addresses if "www.w3.org/2000/svg" not in each] == [], path.name

    assert re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", HTML) == []


def test_modules_are_found_where_they_are_imported() -> None:
    for name, text in SCRIPTS.items():
        for imported in re.findall(r'from "\./([\w.]+)"', text):
            assert imported in SCRIPTS, f"{name} imports {imported}"
        for names, module in re.findall(r'import \{([^}]+)\} from "\./([\w.]+)"', text):
            exported = set(re.findall(r"export (?:async )?(?:function|const|let|class) ([\w$]+)", SCRIPTS[module]))
            assert {each.split(" as ")[0].strip() for each in names.split(",") if each.strip()} <= exported, (
                f"{name} from {module}"
            )


def test_all_modules_are_fetched_at_once() -> None:
    assert re.findall(r'modulepreload" href="js/([\w.]+)"', HTML) == [name for name in SCRIPTS if name != "main.js"]


def test_text_never_becomes_markup() -> None:
    for name, text in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name


def test_sampling_methods_are_those_that_there_are() -> None:
    from muybridge.sampling.schedulers import scheduler_names

    listed = re.search(r"const SCHEDULERS = (\[[^\]]+\])", SCRIPTS["form.js"])

    assert listed is not None
    assert json.loads(listed[1]) == scheduler_names()


def test_the_page_is_a_folder_of_the_package() -> None:
    assert Path(PAGE).resolve() == PAGE
    assert (PAGE / "index.html").is_file()
