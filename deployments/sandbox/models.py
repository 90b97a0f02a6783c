"""What the stand-in sells: the two effects models, their prices, and the scenes that both of them know."""

CREDITS_PER_USD = 2_000_000

# Credits per second of video: $0.103 and $0.048.
MODELS = {
    "klingai/kling-video-v1.6-pro-effects": 206_000,
    "klingai/kling-video-v1.6-standard-effects": 96_000,
}

DURATIONS = (5, 10)

PAIR_SCENES = frozenset({"hug", "kiss", "heart_gesture", "fight"})

SCENES = tuple(
    """
    magic_fireball pet_moto_rider media_interview pet_lion pet_delivery pet_chef santa_gifts santa_hug girlfriend
    boyfriend heart_gesture_1 pet_wizard smoke_smoke thumbs_up instant_kid dollar_rain cry_cry building_collapse
    gun_shot mushroom double_gun pet_warrior lightning_power jesus_hug shark_alert long_hair lie_flat polar_bear_hug
    brown_bear_hug jazz_jazz office_escape_plow fly_fly watermelon_bomb pet_dance boss_coming wool_curly iron_warrior
    pet_bee marry_me swing_swing day_to_night piggy_morph wig_out car_explosion ski_ski tiger_hug siblings
    construction_worker let's_ride snatched magic_broom felt_felt jumpdrop celebration splashsplash hula surfsurf
    fairy_wing angel_wing dark_wing skateskate plushcut jelly_press jelly_slice jelly_squish jelly_jiggle pixelpixel
    yearbook instant_film anime_figure rocketrocket bloombloom dizzydizzy fuzzyfuzzy squish expansion hug kiss
    heart_gesture fight
    """.split()  # noqa: SIM905  # one name a line, or ten times the quotes, would be harder to check
)


def price(model: str, seconds: int) -> int:
    """The price of one generation, in credits; `model` is one of `MODELS`."""
    return MODELS[model] * seconds


def usd(credit_count: int) -> float:
    """Credits as US dollars."""
    return round(credit_count / CREDITS_PER_USD, 6)
