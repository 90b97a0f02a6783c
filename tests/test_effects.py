"""The catalogue: what it holds, how a user's file changes it, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks import effects
from tasks.effects import Catalogue, Effect, check_job, load_catalogue
from tasks.errors import BadInput
from tasks.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable

PRO = "klingai/kling-video-v1.6-pro-effects"
STANDARD = "klingai/kling-video-v1.6-standard-effects"
CORE = {"hug", "kiss", "heart_gesture", "squish", "expansion"}
TWO_PEOPLE = {"hug", "kiss", "heart_gesture", "fight"}


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def problems_of(extra: str) -> tuple[str, ...]:
    with pytest.raises(BadInput) as caught:
        load_catalogue(extra)
    return caught.value.problems


def job(effect: str = "hug", images: int = 2, **fields: object) -> Job:
    return Job.model_validate({"effect": effect, "images": [f"{number}.jpg" for number in range(images)], **fields})


class TestBuiltIn:
    """What the built-in file holds."""

    def test_all_eighty_scenes(self, catalogue: Catalogue) -> None:
        """Every scene of AIML API's list is a row, the one with an apostrophe too."""
        assert len(catalogue.effects) == 80
        assert catalogue.effect("let's_ride").images == 1

    def test_core(self, catalogue: Catalogue) -> None:
        """The five promised effects are marked and come with a description."""
        core = {name for name, effect in catalogue.effects.items() if effect.core}
        assert core == CORE
        assert all(catalogue.effect(name).description for name in CORE)

    def test_two_people(self, catalogue: Catalogue) -> None:
        """Two-person scenes take two images in a told order, need faces, and can last 5 or 10 seconds."""
        two = {name: effect for name, effect in catalogue.effects.items() if effect.images == 2}
        assert set(two) == TWO_PEOPLE
        assert all(e.face and e.durations == (5, 10) and "left" in e.order for e in two.values())

    def test_single_image(self, catalogue: Catalogue) -> None:
        """All other scenes take one image, last 5 seconds and need no face; only squish and expansion sound."""
        one = {name: effect for name, effect in catalogue.effects.items() if effect.images == 1}
        assert all(e.durations == (5,) and not e.face and not e.order for e in one.values())
        assert {name for name, effect in one.items() if effect.sound} == {"squish", "expansion"}

    def test_provider(self, catalogue: Catalogue) -> None:
        """The default is the pro model on the route that is its own; every scene is offered by both models."""
        assert catalogue.provider.default_model == PRO
        assert catalogue.provider.path == "/v2/generate/video/kling/generation"
        assert all(effect.models == (PRO, STANDARD) for effect in catalogue.effects.values())

    def test_limits(self, catalogue: Catalogue) -> None:
        """The limits for images are Kling's, with ten megabytes read in the stricter way."""
        limits = catalogue.provider.images
        assert (limits.max_bytes, limits.min_side, limits.max_aspect) == (10_000_000, 300, 2.5)
        assert limits.formats == ("jpeg", "png")

    @pytest.mark.parametrize(
        ("model", "duration", "usd"), [(PRO, 5, 0.515), (PRO, 10, 1.03), (STANDARD, 5, 0.24), (STANDARD, 10, 0.48)]
    )
    def test_price(self, catalogue: Catalogue, model: str, duration: int, usd: float) -> None:
        """A price is seconds times the model's rate, without the dust of binary fractions."""
        assert catalogue.price_usd(model, duration) == usd

    def test_frozen(self, catalogue: Catalogue) -> None:
        """Nothing can be changed once it is loaded."""
        with pytest.raises(ValidationError, match="frozen"):
            catalogue.effect("hug").images = 1  # type: ignore[misc]

    def test_imports_nothing_heavy(self) -> None:
        """The catalogue can be loaded without Prefect and without Pillow."""
        code = "import sys, tasks.effects as e; e.load_catalogue(); print({'prefect', 'PIL'} & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
        )
        assert done.stdout.strip() == "set()"


class TestUnknown:
    """Names that are not in the catalogue."""

    @pytest.mark.parametrize(
        ("given", "meant"), [("hugg", "'hug'"), ("KISS", "'kiss'"), ("lets_ride", '"let\'s_ride"')]
    )
    def test_effect_names_the_closest(self, catalogue: Catalogue, given: str, meant: str) -> None:
        """A misspelt effect is answered with the one that was probably meant, and where all are listed."""
        with pytest.raises(BadInput) as caught:
            catalogue.effect(given)
        assert caught.value.reason == f"unknown effect '{given}': did you mean {meant}? `effects effects` lists all"

    @given(st.text())
    def test_any_other_name(self, name: str) -> None:
        """Whatever a manifest holds as an effect, the answer is an effect or one short printable line."""
        catalogue = load_catalogue()
        if name not in catalogue.effects:
            with pytest.raises(BadInput) as caught:
                catalogue.effect(name)
            assert caught.value.reason.isprintable()
            assert len(caught.value.reason) < 200

    def test_model(self, catalogue: Catalogue) -> None:
        """An unknown model is answered with the known ones and with how to add it."""
        with pytest.raises(BadInput) as caught:
            catalogue.model("kling-3")
        for word in (PRO, STANDARD, "EFFECTS_MODEL", "[models.kling-3]", "usd_per_second", "EFFECTS_CATALOGUE"):
            assert word in caught.value.reason


class TestUserFile:
    """A user's file adds to the built-in one and overrides it, or is refused."""

    def test_adds_an_effect(self, toml: Callable[[str], str]) -> None:
        """A new row needs nothing but its name; the file is its source, and the built-in rows stay."""
        url = toml("[effects.hug_pro]\nimages = 2\ndurations = [5, 10]\n")
        loaded = load_catalogue(url)
        assert loaded.effect("hug_pro").durations == (5, 10)
        assert loaded.effect("hug_pro").source == url
        assert len(loaded.effects) == 81

    def test_overrides_one_field(self, toml: Callable[[str], str], catalogue: Catalogue) -> None:
        """A row that exists keeps every field that the file does not name."""
        changed = load_catalogue(toml("[effects.hug]\ndurations = [5]\n")).effect("hug")
        assert changed.durations == (5,)
        same = {"durations", "source"}
        assert changed.model_dump(exclude=same) == catalogue.effect("hug").model_dump(exclude=same)

    def test_overrides_the_provider(self, toml: Callable[[str], str]) -> None:
        """A new model, the universal route and other limits are three short tables; every scene offers the model."""
        loaded = load_catalogue(
            toml(
                '[provider]\ndefault_model = "kling-3"\npath = "/v2/video/generations"\n'
                "[models.kling-3]\nusd_per_second = 1\n[images]\nmin_side = 512\n"
            )
        )
        assert loaded.provider.path == "/v2/video/generations"
        assert loaded.provider.images.min_side == 512
        assert loaded.provider.images.max_bytes == 10_000_000
        assert check_job(job(), loaded)[1].id == "kling-3"
        assert loaded.price_usd("kling-3", 5) == 5.0

    def test_defaults(self, toml: Callable[[str], str]) -> None:
        """Defaults hold for every scene that does not say otherwise itself."""
        loaded = load_catalogue(toml("[defaults]\ndurations = [5, 10]\n"))
        assert loaded.effect("squish").durations == (5, 10)

    def test_does_not_leak(self, toml: Callable[[str], str]) -> None:
        """Loading a user's file changes nothing for who loads the built-in catalogue after it."""
        before = load_catalogue()
        load_catalogue(toml("[effects.hug]\ndurations = [7]\n[effects.mine]\n"))
        assert load_catalogue() == before

    def test_any_filesystem(self) -> None:
        """The file may lie on any filesystem that fsspec knows; a Windows editor's BOM does no harm."""
        with fsspec.open("memory://catalogue/mine.toml", "wb") as file:
            file.write(b"\xef\xbb\xbf[effects.mine]\r\n")
        assert load_catalogue("memory://catalogue/mine.toml").effect("mine").images == 1

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[effects.hug]\nimage = 2", "[effects.hug] has no field image: did you mean 'images'?"),
            ("[effects.hug]\nname = 'x'", "[effects.hug] has no field name"),
            ("[effects.hug]\nimages = '2'", "[effects.hug] images: input should be a valid integer; it is '2'"),
            ("[effects.hug]\nimages = true", "[effects.hug] images: input should be a valid integer; it is True"),
            ("[effects.hug]\nimages = 3", "[effects.hug] images: input should be less than or equal to 2; it is 3"),
            ("[effects.hug]\ndurations = [5, '10']", "[effects.hug] durations: input should be a valid integer"),
            ("[effects.hug]\ndurations = []", "[effects.hug] durations: "),
            ("[effects.hug]\nmodels = ['x']", "[effects.hug] models: 'x' has no row in [models]"),
            ("[effects]\nhug = 1", "[effects] hug: has to be a table of fields"),
            ('[effects."../x"]', '[effects."../x"] the name may hold a-z, 0-9'),
            ("[effects._open]", "[effects._open] the name may hold"),
            ("[effects.Hug]", "[effects.Hug] the name may hold"),
            ('[effects."hug\\n"]', "the name may hold"),
            ("[models.new]", "[models.new] usd_per_second: is missing"),
            ("[models.new]\nusd_per_second = inf", "[models.new] usd_per_second: "),
            ("[models.new]\nusd_per_second = -1", "[models.new] usd_per_second: "),
            ("[provider]\ndefault_model = 'x'", "[provider] default_model: 'x' has no row in [models]"),
            ("[provider]\nmodels = 'x'", "[provider] has no field models"),
            ("[provider]\npath = 'https://x/'", "[provider] path: "),
            ("[images]\nformats = ['webp']", "[images] formats: "),
            ("[images]\nmin_sides = 5", "[images] has no field min_sides: did you mean 'min_side'?"),
            ("[defaults]\nimages = 'one'", "[defaults] images: input should be a valid integer; it is 'one'"),
            ("[effect.hug]", "there is no table [effect]: did you mean 'effects'?"),
            ("effects = 1", "[effects] has to be a table of fields"),
        ],
    )
    def test_names_file_row_and_field(self, toml: Callable[[str], str], text: str, problem: str) -> None:
        """What does not fit is one line with the file, the row and the field."""
        url = toml(text)
        (found,) = problems_of(url)
        assert found.startswith(f"{url}: ")
        assert problem in found

    def test_all_problems_at_once(self, toml: Callable[[str], str]) -> None:
        """Several slips in several rows are told in one go."""
        text = "[effects.hug]\nimage = 2\nsound = 1\n[effects.squish]\nimages = 0\n[images]\nmin_side = 0\n"
        assert len(problems_of(toml(text))) == 4

    @pytest.mark.parametrize(
        ("text", "line"), [("[effects.hug]\nimages =\n", "line 2"), ("[effects.hug]\nimages = '''\n", "line 3")]
    )
    def test_syntax_error(self, toml: Callable[[str], str], text: str, line: str) -> None:
        """What is not TOML is one line with the file and the line's number."""
        url = toml(text)
        (found,) = problems_of(url)
        assert found.startswith(f"{url}: not valid TOML")
        assert line in found
        assert "\n" not in found

    @pytest.mark.parametrize("nested", ["x = " + "[" * 5000, "[effects.a]\nx = " + "{a=" * 5000])
    def test_nested_too_deeply(self, toml: Callable[[str], str], nested: str) -> None:
        """A file that would exhaust the parser is a problem like any other."""
        assert len(problems_of(toml(nested))) == 1

    def test_other_encoding(self, tmp_path: Path) -> None:
        """A file in another encoding is told so, with the line."""
        (tmp_path / "latin.toml").write_bytes("[effects.hug]\ndescription = 'é'\n".encode("latin-1"))
        (found,) = problems_of(str(tmp_path / "latin.toml"))
        assert "UTF-8 (at line 2)" in found

    def test_not_there(self, tmp_path: Path) -> None:
        """A file that is not there, a folder, an unknown protocol and a huge file are one line each."""
        (tmp_path / "huge.toml").write_bytes(b"#" * (effects.MAX_CATALOGUE_BYTES + 1))
        for url in (str(tmp_path / "no.toml"), str(tmp_path), "nosuch://x/y.toml", str(tmp_path / "huge.toml")):
            (found,) = problems_of(url)
            assert found.startswith(f"{url}: ")
            assert "EFFECTS_CATALOGUE" in found
            assert "\n" not in found

    def test_signature_stays_secret(self) -> None:
        """The signature of a signed URL is in no message."""
        (found,) = problems_of("memory://nowhere/mine.toml?X-Amz-Signature=abc123")
        assert "abc123" not in found

    @given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    def test_any_content(self, content: bytes) -> None:
        """Whatever the file holds, the answer is a catalogue or BadInput."""
        with fsspec.open("memory://catalogue/any.toml", "wb") as file:
            file.write(content)
        with contextlib.suppress(BadInput):
            assert len(load_catalogue("memory://catalogue/any.toml").effects) >= 80


class TestCheckJob:
    """What can be said of a job without its images."""

    @pytest.mark.parametrize("name", sorted(CORE))
    def test_core_passes(self, catalogue: Catalogue, name: str) -> None:
        """Each promised effect can be asked for, at every duration that it allows."""
        effect = catalogue.effect(name)
        for duration in effect.durations:
            asked = job(name, effect.images, duration=duration)
            assert check_job(asked, catalogue) == (effect, catalogue.model(PRO))

    @pytest.mark.parametrize(
        ("effect", "images", "line"),
        [
            ("hug", 1, "hug needs two images (the first is the person on the left); one was given"),
            ("kiss", 0, "kiss needs two images (the first is the person on the left); none was given"),
            ("hug", 3, "hug needs two images (the first is the person on the left); three were given"),
            ("hug", 12, "hug needs two images (the first is the person on the left); 12 were given"),
            ("squish", 2, "squish needs one image; two were given"),
        ],
    )
    def test_number_of_images(self, catalogue: Catalogue, effect: str, images: int, line: str) -> None:
        """A wrong number of images is told with what is needed and in which order."""
        with pytest.raises(BadInput) as caught:
            check_job(job(effect, images), catalogue)
        assert caught.value.problems == (line,)

    def test_duration(self, catalogue: Catalogue) -> None:
        """A scene of one image cannot last 10 seconds; a two-person scene can, but not 7."""
        with pytest.raises(BadInput, match=r"squish lasts 5 seconds; a duration of 10 was asked for"):
            check_job(job("squish", 1, duration=10), catalogue)
        with pytest.raises(BadInput, match=r"hug lasts 5 or 10 seconds; a duration of 7 was asked for"):
            check_job(job(duration=7), catalogue)

    def test_model_order(self, catalogue: Catalogue) -> None:
        """The job's own model goes first, then the caller's default, then the catalogue's."""
        assert check_job(job(model=PRO), catalogue, default_model=STANDARD)[1].id == PRO
        assert check_job(job(), catalogue, default_model=STANDARD)[1].id == STANDARD
        assert check_job(job(), catalogue)[1].id == PRO

    def test_model_that_does_not_make_it(self, toml: Callable[[str], str]) -> None:
        """An effect that the chosen model does not make is refused, with the models that do."""
        loaded = load_catalogue(toml(f'[effects.hug]\nmodels = ["{STANDARD}"]\n'))
        with pytest.raises(BadInput, match=f"not made by the model {PRO}; set EFFECTS_MODEL to {STANDARD}"):
            check_job(job(), loaded)

    def test_everything_at_once(self, catalogue: Catalogue) -> None:
        """A job with a wrong count, a wrong duration and a wrong model is told all three; nothing hides another."""
        for wrong, count in ((job("hug", 1, duration=6, model="x"), 3), (job("hugg", model="x"), 2)):
            with pytest.raises(BadInput) as caught:
                check_job(wrong, catalogue)
            assert len(caught.value.problems) == count


def test_names_are_safe_folders(catalogue: Catalogue, tmp_path: Path) -> None:
    """Every name is one folder below the target, and none is one of the ledger's own."""
    for name in catalogue.effects:
        (tmp_path / name).mkdir()
        assert not name.startswith(("_", ".", "-"))
    assert sorted(os.listdir(tmp_path)) == sorted(catalogue.effects)  # noqa: PTH208 - names as they are


def test_effect_refuses_unsafe_names(catalogue: Catalogue) -> None:
    """The type itself guards the name, not only the loader."""
    good = catalogue.effect("hug").model_dump()
    for name in ("..", "a/b", "", "_open", "hug\n", "A", "-rf"):
        with pytest.raises(ValidationError):
            Effect.model_validate({**good, "name": name})
