"""Prefect's two dashboards, as a person handles them: by what is written on them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page


class Dashboard(ABC):
    """One of the two in a browser's page.

    Args:
        page: of the browser.
        url: of the server.
        screenshots: the folder that `shot` puts them in.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    kind: ClassVar[Literal["tab", "button"]]
    """What the kind of an optional value is chosen with."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        self.page, self._url, self._screenshots = page, url, screenshots

    def shot(self, name: str) -> None:
        """Keep what is to be seen; nothing on it may have gone wrong."""
        self.page.screenshot(path=self._screenshots / f"{self.name}-{name}.png")
        expect(self.page.get_by_text("Oops")).to_have_count(0)

    def open(self, path: str) -> None:
        """Go to a page by its address."""
        self.page.goto(f"{self._url}{self.prefix}{path}")

    def open_deployment(self, name: str) -> None:
        """Find a deployment among all, and look at it."""
        self.open("/deployments")
        self.page.get_by_role("link", name=name, exact=True).click()
        expect(self.page.get_by_role("button", name="Run", exact=True)).to_be_visible()

    def open_form(self, name: str) -> None:
        """The form that a deployment is run with."""
        self.open_deployment(name)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()
        expect(self.page.get_by_role("heading", name="Parameters")).to_be_visible()

    def write(self, text: str) -> None:
        """Fill in the form's first line of text, after the run's name."""
        self._texts.nth(1).fill(text)

    def write_number(self, number: int) -> None:
        """Fill in the number that need not be given: its kind is chosen first."""
        self.page.get_by_role(self.kind, name="int", exact=True).click()
        self.page.get_by_role("spinbutton").fill(str(number))

    def add_photo(self, url: str) -> None:
        """One more line of the list."""
        before = self._texts.count()
        self.page.get_by_role("button", name="Add item").click()
        expect(self._texts).to_have_count(before + 1)
        self._texts.nth(before).fill(url)

    def submit(self) -> str:
        """Send the form and go to the run that comes of it; returns the run's id."""
        self.page.get_by_role("button", name="Submit").click()
        self.page.get_by_role("button", name="View run").last.click()  # V1 shows the same notice twice, in one place
        self.page.wait_for_url("**/runs/flow-run/*")
        found = re.search(r"flow-run/([0-9a-f-]{36})", self.page.url)
        assert found, self.page.url
        return found[1]

    def add_schedule(self, hours: int) -> None:
        """To the deployment that is open: every so many hours."""
        self.page.get_by_role("button", name="Schedule", exact=True).click()
        dialog = self.page.get_by_role("dialog")
        self._fill_interval(dialog, hours)
        self.shot("schedule-form")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog).to_have_count(0)

    def until(self, state: str) -> None:
        """Watch the run, or the task run, until its page says so; nobody reloads it."""
        expect(self.page.get_by_text(state, exact=True).first).to_be_visible()

    @abstractmethod
    def _fill_interval(self, dialog: Locator, hours: int) -> None:
        """The schedule's."""

    def read_message(self, message: str) -> None:
        """The state's, among the details of the run that is open."""
        self.tab("Details")
        expect(self.page.get_by_text(message)).to_be_visible()

    @property
    @abstractmethod
    def _texts(self) -> Locator:
        """The form's lines of text."""

    @abstractmethod
    def choose(self, label: str, value: str) -> None:
        """Take a value of a select."""

    @abstractmethod
    def tab(self, name: str) -> None:
        """Turn to one of a page's tabs."""


class V2(Dashboard):
    """The one that opens by itself."""

    name, prefix, kind = "v2", "/v2", "tab"

    @property
    def _texts(self) -> Locator:
        return self.page.get_by_role("main").get_by_role("textbox")

    def choose(self, label: str, value: str) -> None:
        """A button that opens a list."""
        self.page.get_by_role("button", name=f"Select {label}").click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def tab(self, name: str) -> None:
        """A tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def _fill_interval(self, dialog: Locator, hours: int) -> None:
        dialog.get_by_role("textbox", name="Value").fill(str(hours))
        dialog.get_by_role("combobox", name="Interval").click()
        self.page.get_by_role("option", name="Hours").click()


class V1(Dashboard):
    """The one before it: a way back to it is on each page."""

    name, prefix, kind = "v1", "", "button"

    @property
    def _texts(self) -> Locator:
        return self.page.get_by_role("textbox")

    def choose(self, label: str, value: str) -> None:
        """The select under its label, which it is not tied to."""
        labelled = self.page.locator(".p-label", has=self.page.get_by_text(label, exact=True))
        self._take(labelled.get_by_role("group").get_by_role("button"), value)

    def tab(self, name: str) -> None:
        """An item of a list."""
        self.page.get_by_role("tablist").get_by_text(name, exact=True).click()

    def read_message(self, message: str) -> None:
        """The state's, which is cut off at first."""
        self.tab("Details")
        self.page.get_by_text("See More").click()
        expect(self.page.get_by_text(message)).to_be_visible()

    def _fill_interval(self, dialog: Locator, hours: int) -> None:
        dialog.get_by_role("spinbutton").fill(str(hours))
        self._take(dialog.get_by_role("button", name="Minutes"), "Hours")

    def _take(self, select: Locator, value: str) -> None:
        """By the keyboard: for Playwright's mouse the list opens and closes at once."""
        select.press("ArrowDown")
        self.page.get_by_role("option", name=value, exact=True).click()
