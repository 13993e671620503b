"""Small things of the page that people stumble over where they are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.browser.served import Service, serving
from tests.browser.test_page import STEPS_TO_CANCEL, card, draft_of, drop, pick, until

from muybridge.jobs.store import JobStore
from muybridge.video import Video

pytestmark = pytest.mark.slow


def pinned(page: Any) -> dict[str, str]:
    conditions = {each["kind"]: each for each in draft_of(page).get("conditions", [])}
    return conditions.get("keyframes", {}).get("pictures", {})


@pytest.fixture
def busy(service: Service) -> Iterator[list[str]]:
    """Videos that wait behind one that takes long."""
    service.clear()
    running = service.ask("a red circle moving left", num_inference_steps=STEPS_TO_CANCEL)
    yield [service.ask(f"a blue heart number {number}", num_inference_steps=1) for number in range(4)]
    for job in service.call("GET", "/v1/queue")["videos"]:
        service.call("POST", f"/v1/videos/{job['id']}/cancel")
    service.call("POST", f"/v1/videos/{running}/cancel")
    service.wait(running)


def test_a_keyframe_is_dragged_all_the_way(pages: Any, pictures: list[Path]) -> None:
    page = pages()
    pick(page, "#slot-start .add", pictures[0])
    pick(page, "#slot-frame .add", pictures[1])
    page.wait_for_selector('#timeline [data-frame="8"]')
    page.locator("#timeline").scroll_into_view_if_needed()
    handle, track = (page.locator(place).bounding_box() for place in ('#timeline [data-frame="8"]', "#timeline .track"))
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    for target in (13, 4):
        page.mouse.move(x, y)
        page.mouse.down()
        x = track["x"] + track["width"] * target / 15
        page.mouse.move(x, y, steps=12)
        page.mouse.up()
        assert sorted(pinned(page), key=int) == ["0", str(target)]
    page.mouse.move(track["x"], y, steps=3)  # nothing is held any more
    assert sorted(pinned(page), key=int) == ["0", "4"]


def test_of_several_start_pictures_the_next_takes_the_place_of_the_first(pages: Any, pictures: list[Path]) -> None:
    page = pages()
    drop(page, "#slot-start", pictures)
    page.wait_for_selector("#batch .thumb:nth-child(2)")
    starts = page.evaluate("JSON.parse(localStorage.getItem('muybridge.draft')).starts")
    page.focus("#slot-start .icon-button")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#batch .thumb').length === 1")
    assert pinned(page) == {"0": starts[0]}
    assert page.inner_text("#generate") == "Generate 2 videos"
    assert page.evaluate("document.activeElement.closest('#slot-start') !== null")


def test_what_is_dropped_is_taken_for_what_it_is(pages: Any, tmp_path: Path) -> None:
    still, moving = tmp_path / "still.webp", tmp_path / "moving.webp"
    Image.new("RGB", (64, 64), "red").save(still)
    Video(np.zeros((4, 64, 64, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None] * 60).save(moving)
    page = pages()
    drop(page, "body", [still])
    page.wait_for_selector("#slot-start.filled")
    drop(page, "body", [moving])
    page.wait_for_selector("#slot-video.filled")
    assert {each["kind"] for each in draft_of(page)["conditions"]} == {"keyframes", "source"}
    page.click("#clear")
    drop(page, "#slot-start", [moving])
    page.wait_for_selector(".field-error")
    assert "This is a video" in page.inner_text(".field-error")
    assert pinned(page) == {}


def test_the_brush_and_its_button_fit_the_screen(pages: Any, tmp_path: Path) -> None:
    tall = tmp_path / "tall.gif"
    Video(np.zeros((2, 96, 64, 3), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None, None] * 99).save(tall)
    for width, height in ((1024, 768), (390, 844)):
        page = pages(width, height)
        pick(page, "#slot-video .add", tall)
        page.wait_for_selector("#paint")
        page.click("#paint")
        for place in ("#brush-size", "#mask .actions .primary"):
            box = page.locator(place).bounding_box()
            assert box["y"] + box["height"] <= height
        stage = page.locator(".mask-stage").bounding_box()
        assert stage["height"] / stage["width"] == pytest.approx(1.5, rel=0.02)


def test_files_that_were_sent_from_elsewhere_are_known(pages: Any, tmp_path: Path) -> None:
    source = tmp_path / "source.gif"
    Video(np.zeros((5, 48, 64, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None] * 40).save(source)
    first, second = pages(), pages()
    pick(first, "#slot-video .add", source)
    first.wait_for_selector("#source .said")
    second.evaluate("async (request) => (await import('/js/draft.js')).useRequest(request)", draft_of(first))
    until(second, "document.querySelector('#source .said')?.textContent.includes('64')")
    assert second.is_enabled('#ratios input[value="fit"]')


def test_places_in_the_queue_are_those_of_now(pages: Any, service: Service, busy: list[str]) -> None:
    page = pages()
    until(page, "document.querySelectorAll('#queued .job').length === 4")
    said = f'#queued [data-id="{busy[2]}"] .said'
    until(page, f"document.querySelector('{said}').textContent.startsWith('No. 3')")
    service.call("POST", f"/v1/videos/{busy[0]}/cancel")
    until(page, f"document.querySelector('{said}').textContent.startsWith('No. 2')")
    assert page.inner_text("#queue-said") == "3 waiting"


def test_the_focus_stays_on_what_is_moved_and_goes_to_the_next_of_what_is_removed(pages: Any, busy: list[str]) -> None:
    page = pages()
    until(page, "document.querySelectorAll('#queued .job').length === 4")
    page.focus(f'#queued [data-id="{busy[3]}"] [aria-label="Earlier"]')
    for place in (2, 1):
        page.keyboard.press("Enter")
        until(page, f"document.querySelectorAll('#queued .job')[{place}].dataset.id === '{busy[3]}'")
    page.focus(f'#queued [data-id="{busy[3]}"] [aria-label="Cancel"]')
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#queued .job').length === 3")
    assert page.evaluate("document.activeElement.closest('#queued .job')?.dataset.id") == busy[1]


def test_what_was_deleted_while_the_service_was_away_is_gone(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "0") as address:
        service = Service(address)
        videos = [service.ask(f"a heart number {number}") for number in range(2)]
        for video in videos:
            service.call("POST", f"/v1/videos/{video}/cancel")
        page = browser.new_context(locale="en-GB").new_page()
        page.goto(address)
        page.wait_for_selector(card(videos[0]))
    until(page, "document.querySelector('#service-state').dataset.state === 'away'")
    store = JobStore.open(str(tmp_path / "data" / "jobs.db"))
    store.delete(videos[0])
    store.close()
    with serving(tmp_path, "--workers", "0", "--port", address.rpartition(":")[2]):
        until(page, "document.querySelector('#service-state').dataset.state === 'ready'")
        page.wait_for_selector(card(videos[0]), state="detached")
        assert page.is_visible(card(videos[1]))
    page.context.close()
