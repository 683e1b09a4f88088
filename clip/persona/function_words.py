"""Which words hold a description together: lists of negators, verbs, adverbs, pronouns, and nothing else.

kind -> words of that kind, comma between, as in persona/words.py. Lower down, sets that the rules ask for by name.
"""


def listed(words: str) -> list[str]:
    """ "red, sky blue" -> ["red", "sky blue"], over several lines too."""
    return [" ".join(word.split()) for word in words.split(",") if word.strip()]


NEGATORS = """
    no, not, never, without, lacks, lacking, lack, lacked, neither, nor, devoid, doesn't, don't, didn't, isn't,
    aren't, wasn't, weren't, hasn't, haven't, hadn't, can't, cannot, couldn't, won't, wouldn't, rarely, seldom,
    hardly, scarcely, barely, no longer, stopped, ceased, unlike, instead of, rather than, as opposed to,
    in contrast to, against, than, anything but, far from, fails to, forgoing, forgoes, forgo, wants to be,
    want to be, wanted to be, wants to become, tries to be, hopes to be, wish, wishes, wished, pretends, pretending,
    pretended, mistaken for, like a, like an, as if, as though, vulnerable to, absence, used to hate, dislikes,
    hates, dreams of, similar to, nothing like
"""
NOT_NEGATORS = """
    not only, not just, not merely, not simply, not solely, no matter, no doubt, no less, nothing but,
    nothing if not, not to mention, no exception, looks as if, never fails to, more often than not,
    not without reason, whether or not, less than a, no other than, none other than, other than that,
    rather than that, no one, nobody, no stranger
"""
# Before "like a" these make a likeness of it: "looks like a girl" is no "shaped like a rose".
LIKENESS = "look, looks, looking, looked, appear, appears, appeared, seem, seems, seemed"
BREAKS = """
    but, though, although, however, while, whereas, yet, except, instead, because, despite, even though, whilst,
    and then, when, whenever, if, unless, until
"""
VERBS = """
    is, are, was, were, be, has, have, had, having, wears, wear, wore, wearing, worn, dons, sports, sporting,
    dressed, carries, carry, carrying, wields, wield, wielding, looks, look, appears, appear, seems, seem, becomes,
    became, keeps, holds, uses, possesses, gets, acts, tends, shows, displays, features, consists, includes, makes,
    made, being, clad, likes, loves, enjoys, prefers, can, will, would, could, does, do, did, remains, stays,
    prefer, fight, fights, owns
"""
# Between a noun and what is said of it behind it: "hair | is now | black", "eyes | of a deep | blue".
LINK_VERBS = """
    used to, is, are, was, were, be, been, being, appears, appear, appeared, looks, look, looked, seems, seem,
    seemed, remains, remained, became, become, becomes, turned, turns, turn, turning, grew, grown, grows, dyed, dye,
    bleached, colored, coloured, kept, worn, styled, cut, trimmed, changed, changes, change, changing, fades,
    fading, has, have, had, would, will, can, may, that, which
"""
LINKS = """
    a, an, the, same, in, of, from, into, to, as, color, colour, colors, colours, shade, shades, hue, hues, tone,
    mix, mixture, blend, half, it, slight
"""
TEMPORAL = """
    once, later, now, originally, initially, formerly, previously, currently, then, eventually, usually, which,
    that, colored, coloured, dyed, styled, being, both, generally, afterwards, normally, typically, kept, cut
"""
SHADE_OF = listed("shade, shades, hue, hues, tone, color, colour, of")
ADVERBS = """
    in the manga, in the anime, in the game, in the novel, in the light novel, in the visual novel, in the original,
    in the series, in the movie, already, soon, finally, very, quite, rather, somewhat, extremely, a bit, slightly,
    almost, often, always, sometimes, usually, also, more, most, too, so, both, really, still, pretty, well,
    generally, as, just, bit, even, at times, at first, a little, kind of, sort of, somehow, ever, equally,
    especially, truly, once, now, then, originally, initially, later, formerly, seemingly, surprisingly, perhaps,
    quite a, only, much, all, rather a, otherwise, naturally, a lot, overall, never-ending
"""
STOPS = """
    the, a, an, he, she, it, they, him, her, his, hers, their, its, them, this, that, these, those, who, whom,
    whose, which, what, with, within, to, from, for, of, in, on, at, by, over, under, about, around, between,
    through, during, into, onto, upon, along, above, below, behind, beside, across, near, toward, towards, as,
    because, since, when, where, how, why, there, here, or, nor, one, other, another, each, every, some, any, many,
    several, few, own, up, down, out, off, back, after, before, again, such, due, even, only, almost, i, you, we,
    us, my, your, our, himself, herself, together, along with, in order, especially, too, enough, like, underneath,
    besides, against, than, including, outside, inside, beneath, reaches, falls, flows, frames, covers, comes, goes
"""

FUNCTION_WORDS = {
    "negator": NEGATORS,
    "stop": STOPS,
    "break": BREAKS,
    "verb": VERBS,
    "link verb": LINK_VERBS,
    "link": LINKS,
    "temporal": TEMPORAL,
    "adverb": ADVERBS,
}

# Small sets that rules ask for by name.
JOINTS = listed("and, or, but, yet, /") + [","]
PRONOUNS = listed("he, she, they, it, i, who")
BE = listed("""
    is, are, was, were, be, been, being, seems, seem, seemed, appears, appear, appeared, looks, look, looked, becomes,
    became, become, becoming, remains, remained, stays, acts, act, acting, grew, grows, he's, she's, they're
""")
MODALS = listed("can, could, may, might, will, would, has, have, had, does, did, himself, herself")
COMPARING = listed("""
    unlike, than, instead of, rather than, similar to, against, like a, like an, as opposed to, in contrast to,
    vulnerable to, mistaken for
""")
JOINED_KIN = listed("and, like, both, as, to, of, by, from, with, than, resembles, resemble, or")
REACHES = listed("""
    reaches, reach, reaching, reached, falls, falling, fall, down, past, below, above, extends, extending, extended,
    goes, going, flows, flowing, hangs, hanging, until, cascades, cascading, ends, stops, passes, passing, to, at
""")
PLACES = listed("""
    shoulder, shoulders, chin, neck, waist, hip, hips, knee, knees, ankle, ankles, back, thigh, thighs, ear, ears, jaw,
    feet, floor, collarbone, elbow, elbows, chest, nape, midback, calves, rear
""")
ACTORS = listed("he, she, they, who, that, which, to, it, can, will, would, could")
ACTED_ON = listed("it, his, her, their, them, up, back, at")
ARCHERY = listed(
    "arrow, arrows, archer, archers, archery, quiver, wields, wield, shoot, shoots, fire, hunting, weapon, weapons,"
    "armaments, mastery"
)
SOMETHING = listed("it, this, that, there, these, those, what")
OF_WHAT = listed("average, below average, above average, medium, small, large, big")  # height, build, ...
INTENSIFIERS = listed("very, quite, rather, extremely, really, so, too, fairly, incredibly, highly")
VAGUE_BUILDS = OF_WHAT + listed("huge, giant, massive, tiny, slight, old, older, mature, ancient, short, fit, adult")
