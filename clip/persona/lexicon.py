"""Which words say something that can be seen of a character, or tell its temper: lists, and nothing else.

kind -> words of that kind, comma between. A compound written with a hyphen or a blank stands for all its spellings
("pony-tail": ponytail, pony tail, pony-tail), and things stand for their plural too. A word may be of several kinds
("short": of hair, of a person, of a skirt); which one is meant is decided by the rules of the other files.
"""

from clip.persona.function_words import FUNCTION_WORDS, listed

# A colour by itself, and what only shades one: "light brown", "deep sea blue".
COLOURS = """
    black, white, grey, gray, silver, silvery, brown, brunette, blonde, blond, red, crimson, scarlet, maroon,
    burgundy, auburn, chestnut, ginger, orange, yellow, gold, golden, amber, hazel, green, emerald, olive, lime,
    mint, teal, turquoise, aqua, aquamarine, cyan, blue, azure, cerulean, cobalt, navy, indigo, sapphire, purple,
    violet, lavender, lilac, mauve, magenta, fuchsia, pink, rose, peach, salmon, coral, beige, cream, ivory, tan,
    khaki, bronze, copper, platinum, ebony, raven, charcoal, chocolate, caramel, mahogany, honey, ruby, garnet,
    jade, topaz, onyx, obsidian, periwinkle, plum, wine, ash, ashen, flaxen, sandy, slate, rust, vermilion, ochre,
    mustard, cerise, terracotta, taupe, reddish, brownish, bluish, blueish, greenish, yellowish, purplish, pinkish,
    whitish, greyish, grayish, blackish, silverish, goldish, orangish, multicolored, multicoloured, multi-colored,
    multi-coloured, rainbow, two-toned, colorless, colourless, off-white, tawny, russet, pearl, lemon, apricot,
    strawberry, ice, brass, steel, sepia, umber, sienna, cherry, coffee, cinnamon, blood-red, jet-black,
    pitch-black
"""
SHADES = """
    light, lighter, dark, darker, pale, bright, deep, vivid, dull, pastel, neon, rich, faded, faint, fair, dirty,
    sky, baby, royal, midnight, sea, forest, ocean, jet, pitch, hot, dusty, muted, icy, snow, snowy, blood, leaf,
    grass, electric, metallic, moss, powder, rosy, smoky, stormy, warm, cool, shocking
"""
SHADES_ALONE = listed("light, lighter, dark, darker, pale, fair")  # "dark hair" says something, "deep hair" not

LENGTHS = """
    long, short, medium, mid-length, medium-length, lengthy, cropped, longish, shortish, long-ish, short-ish,
    shoulder-length, chin-length, neck-length, waist-length, hip-length, knee-length, thigh-length, ankle-length,
    floor-length, jaw-length, ear-length, elbow-length, back-length, mid-back-length, nape-length, chest-length,
    collarbone-length, shoulder-long, waist-long, knee-long, full-length
"""
HAIR_STYLES = """
    blunt, wispy, twin-tailed, pigtailed, ponytailed, messy, spiky, spiked, spikey, curly, curled, wavy, straight,
    unkempt, wild, tousled, braided, layered, fluffy, silky, shaggy, slicked-back, slicked, flowing, untidy, neat,
    bushy, thick, frizzy, choppy, shaved, shaven, disheveled, dishevelled, ruffled, feathered, permed, asymmetrical,
    windswept, glossy, shiny, loose, scruffy, matted, tangled, tied-back, tied-up, pulled-back, swept-back,
    combed-back, brushed-back, let-down, parted, gelled, plaited, pinned-up, pinned-back, bald, balding, receding,
    thinning, unruly, jagged, uneven, voluminous, puffy, kinky, coiled, fine, soft, smooth, side-swept, spike-like,
    center-parted, side-parted, dreadlocked, flat, sleek, crimped, bobbed
"""
HAIR_NOUNS = """
    ponytail, pony-tail, pigtail, twintail, twin-tail, twin-ponytail, side-ponytail, braid, twin-braid,
    french-braid, plait, bun, hair-bun, bangs, fringe, forelock, bob, bob-cut, bob-style, bobcut, bowl-cut, bowlcut,
    hime-cut, pixie-cut, mohawk, afro, dreadlocks, dreads, cornrows, ahoge, antenna, cowlick, ringlet, sidelock,
    sidetail, side-tail, odango, topknot, top-knot, pompadour, undercut, buzz-cut, buzzcut, mullet, crew-cut, curls,
    drill, twin-drill, widow's peak, hair-loop, bedhead, bed-head, tuft, chignon, beehive, rattail, rat-tail, quiff
"""
HAIR_PARTS = "streak, highlight, hair-tip, tip, strand, stripe, root"  # their colour is not the hair's
HAIR_HEADS = "hair, hairs, haired, locks, tresses, mane, hair-do, hair-style, haircut"
BLONDES = "blonde, blond, brunette, redhead, red-head, redheaded, towheaded"  # say the hair's colour without "hair"
BALDS = "bald, balding, hairless"
EYE_HEADS = "eyes, eye, eyed, irises, iris"
EYE_STYLES = """
    large, big, small, narrow, narrowed, wide, round, sharp, almond-shaped, almond, droopy, drooping, slanted,
    slanting, sleepy, tired, piercing, glowing, heterochromatic, heterochromic, cat-like, catlike, upturned, closed,
    half-lidded, half-closed, hollow, empty, gentle, kind, cold, expressive, slitted, slit, beady, dot, squinted,
    squinty, sparkling, lifeless, hooded, deep-set, sunken, bloodshot, compound, feline, reptilian, snake-like,
    wolf-like, bulging, fierce, soft, doe, puppy, shining, bright, dull, mismatched, tapered, triangular, doll-like,
    fox-like, downturned, down-turned, turned-up, round-shaped, intense, soulless, dead, expressionless, blank
"""
PUPILS = "pupil, sclera, sclerae"
YEARS = "years-old, year-old"
PALES = "pale, tanned, freckled, swarthy"  # said of a person they are said of the skin
SKIN_HEADS = "skin, skinned, complexion, complected"
SKIN_WORDS = """
    fair, pale, dark, tan, tanned, light, brown, olive, porcelain, ivory, peach, white, black, grey, gray, blue,
    green, red, pink, purple, ashen, sickly, ghostly, creamy, caramel, bronze, bronzed, sun-kissed, sunkissed,
    freckled, scarred, wrinkled, scaly, rosy, swarthy, ebony, milky, deathly, pallid, sallow, smooth, rough, orange,
    yellow, leathery, tawny, ruddy, lightly-tanned
"""

BUILDS = """
    broad, curvaceous, hourglass, tall, short, slender, slim, muscular, petite, athletic, well-built, thin, skinny,
    chubby, plump, curvy, stocky, burly, lanky, voluptuous, buxom, lean, lithe, fit, broad-shouldered, frail, fat,
    obese, overweight, stout, brawny, scrawny, bulky, towering, diminutive, small, large, big, huge, gigantic,
    giant, massive, hulking, tiny, wiry, gaunt, emaciated, rotund, portly, pudgy, heavyset, heavy-set, well-endowed,
    busty, toned, well-toned, well-muscled, sturdy, robust, slight, thickset, shapely, willowy, bony,
    short-statured, underweight, lightly-built, stubby, slenderly-built, strongly-built, powerfully-built, leggy,
    long-legged, hunched, hunchbacked, rail-thin, average, average-sized, medium, below-average, above-average
"""
BODY_NOUNS = "body, build, built, figure, frame, physique, stature, height, torso"
AGES = """
    young, old, elderly, aged, middle-aged, teenage, teenaged, teen, adult, adolescent, youthful, ageless, mature,
    prepubescent, preteen, older, ancient
"""
PERSONS = """
    girl, boy, man, woman, lady, gentleman, child, kid, teenager, teen, adult, adolescent, male, female, youth,
    toddler, baby, infant, guy, men, women, children, catgirl, cat-girl, schoolgirl, schoolboy, youngster, lad,
    maiden, hag, crone
"""

# What is worn. Generic ones are kept only with a word that describes them.
CLOTHING = """
    slacks, saree, sari, sundress, jacket, coat, lab-coat, trench-coat, overcoat, raincoat, blazer, shirt, t-shirt,
    tee-shirt, undershirt, dress-shirt, polo-shirt, sweatshirt, blouse, top, tank-top, crop-top, tube-top, tunic,
    sweater, pullover, jumper, cardigan, hoodie, vest, waistcoat, turtleneck, dress, gown, evening-gown, skirt,
    miniskirt, mini-skirt, pants, trousers, jeans, shorts, hot-pants, leggings, tights, pantyhose, stockings,
    thighhighs, thigh-highs, socks, knee-socks, knee-high-socks, knee-highs, shoes, boots, sandals, sneakers,
    slippers, heels, high-heels, loafers, clogs, geta, sandal, boot, shoe, uniform, school-uniform, sailor-uniform,
    military-uniform, sailor-suit, gakuran, suit, business-suit, bodysuit, body-suit, jumpsuit, swimsuit,
    bathing-suit, bikini, leotard, tuxedo, tailcoat, kimono, yukata, haori, hakama, happi, obi, qipao, cheongsam,
    hanfu, robe, bathrobe, cloak, cape, mantle, shawl, poncho, apron, overalls, dungarees, pinafore, corset, bodice,
    bra, underwear, panties, boxers, loincloth, sarong, toga, tabard, armor, armour, breastplate, cuirass,
    chainmail, chain-mail, plate-armor, plate-mail, full-plate, plate, mail, pauldron, gauntlet, greaves, vambraces,
    shoulder-pads, shoulder-pad, shoulder-guards, kneepads, knee-pads, leg-warmers, arm-warmers, detached-sleeves,
    sleeves, gloves, glove, mittens, jersey, tracksuit, track-suit, pajamas, pyjamas, nightgown, onesie,
    windbreaker, bolero, camisole, chemise, petticoat, garter-belt, capelet, surcoat, doublet, breeches, jodhpurs,
    sweatpants, bloomers, halter-top, halter, bustier, vestments, habit, maid-outfit, maid-uniform, maid-dress,
    rags, ballgown, parka, bomber-jacket, catsuit, jerkin, hide, leathers, furs, spandex
"""
GENERIC = """
    outfit, clothes, clothing, attire, garment, costume, garb, ensemble, top, suit, sleeves, plate, mail, hide,
    slip, dress-code, furs, rags, leathers, habit, helm
"""
ACCESSORIES = """
    sunhat, sun-hat, sweatband, camera, glasses, eyeglasses, spectacles, sunglasses, shades, goggles, monocle,
    eyepatch, eye-patch, blindfold, mask, gas-mask, face-mask, hat, top-hat, straw-hat, witch-hat, cowboy-hat,
    bucket-hat, cap, baseball-cap, beret, beanie, bonnet, hood, helmet, helm, headband, hairband, hair-band,
    hair-clip, hairclip, hairpin, hair-pin, barrette, hair-tie, hair-ribbon, hair-bow, hair-ornament,
    hair-accessory, hair-accessories, hair-bobbles, hair-tubes, scrunchie, ribbon, bow, bowtie, bow-tie, tie,
    necktie, cravat, ascot, scarf, scarves, bandana, bandanna, headscarf, veil, turban, crown, tiara, circlet,
    diadem, headdress, headpiece, maid-headdress, headphones, earphones, headset, earring, earrings, hoop-earrings,
    stud, ear-stud, ear-cuff, piercing, necklace, pendant, amulet, locket, choker, collar, dog-collar, cross,
    crucifix, rosary, brooch, badge, pin, medal, bracelet, bangle, wristband, armband, anklet, arm-band, watch,
    wristwatch, ring, belt, sash, suspenders, chain, bandage, bandages, bandaid, band-aid, backpack, bag, handbag,
    satchel, purse, pouch, quiver, umbrella, parasol, fan, cane, walking-stick, pipe, cigarette, cigar, visor,
    earmuffs, wig, corsage, garter, epaulettes, epaulets, kerchief, neckerchief, handkerchief, hair-flower, flower,
    bells, bell, feather, lanyard, ear-piece, earpiece, cuffs, shackles, handcuffs, holster, bandolier, wreath,
    flower-crown, animal-ears-band, forehead-protector, talisman, book, lantern, microphone, guitar, violin
"""
FEATURES = """
    wing, tail, horn, antler, antlers, fang, tusk, claw, talon, halo, beard, goatee, stubble, mustache, moustache,
    sideburns, whiskers, facial-hair, scar, tattoo, birthmark, freckles, mole, beauty-mark, beauty-spot, tear-mole,
    dimple, cat-ears, fox-ears, rabbit-ears, bunny-ears, wolf-ears, dog-ears, animal-ears, elf-ears, elf-like ears,
    pointed-ears, pointy-ears, cat-tail, fox-tail, gills, fin, tentacle, scale, scales, fur, hooves, beak, snout,
    feathers, wrinkles, makeup, make-up, lipstick, eyeliner, eyeshadow, eye-shadow, eye-liner, war-paint,
    face-paint, nail-polish, prosthetic-arm, prosthetic-leg, prosthetic, mechanical-arm, stitches, marking,
    snaggletooth, third-eye, muttonchops, crow's feet, dark-circles, bags-under-eyes, exoskeleton, trunk, fins,
    burn-scar, burn-mark
"""
BODY_PARTS = """
    ears, nose, head, hands, hand, feet, mouth, neck, arm, leg, fingers, waist, lips, eyebrows, brows, eyelashes,
    lashes, cheeks, breasts, bust, chest, teeth, nails, fingernails, legs, arms, shoulders, hips, face, muscles,
    jaw, forehead
"""  # kept only with a word that describes them
WEAPONS = """
    sword, longsword, broadsword, greatsword, katana, blade, saber, sabre, rapier, scimitar, dagger, knife, knives,
    spear, javelin, lance, halberd, pike, trident, polearm, staff, staves, wand, scepter, sceptre, scythe, sickle,
    axe, axes, battle-axe, ax, hammer, warhammer, mace, clubs, wooden-club, war-club, flail, whip, longbow,
    shortbow, crossbow, bow-and-arrow, arrow, gun, pistol, revolver, rifle, shotgun, cannon, shield, buckler, kunai,
    shuriken, nunchaku, naginata, claymore, glaive, sling, net, musket, morning-star, machete, cutlass, war-blade,
    throwing-knives, throwing-axe, greataxe, tomahawk, cleaver, bludgeon, jarid, spiked-club, bolas, slingshot,
    whips, cudgel, pitchfork, estoc, foil
"""
# May stand in front of a piece of clothing, an accessory, a feature or a weapon and is then part of its name.
DESCRIBING = """
    schoolgirl, cutaway, tailored, strapped, woven, shoulder, poofy, faux, gilded, poisoned, strong, sturdy, low,
    mesh, heavier, front, hind, two, three, four, combat, riding, rain, hiking, ankle, dress, cargo, biker, aviator,
    ski, running, evening, long, short, large, big, small, loose, tight, baggy, oversized, frilly, frilled, ruffled,
    pleated, plain, simple, elegant, fancy, formal, casual, traditional, chinese, japanese, western, european,
    victorian, gothic, lolita, striped, plaid, checkered, checked, polka-dot, polka-dotted, floral, flowery,
    patterned, camouflage, spotted, dotted, leather, denim, silk, silken, satin, cotton, wool, woolen, woollen,
    lace, lacy, fur, furry, metal, metallic, steel, iron, wooden, straw, velvet, linen, latex, knit, knitted, wood,
    bone, stone, glass, crystal, sleeveless, strapless, backless, hooded, fingerless, cropped, high-collared,
    collared, v-neck, button-up, button-down, buttoned, zip-up, short-sleeved, long-sleeved, double-breasted,
    high-waisted, low-cut, skin-tight, skintight, form-fitting, tight-fitting, loose-fitting, flowing, tattered,
    torn, ragged, ripped, worn, dirty, ornate, heavy, light, thick, thin, high, tall, open, thigh-high, knee-high,
    ankle-high, high-heeled, platform, lace-up, round, square, rectangular, oval, circular, half-rimmed, rimless,
    rimmed, thick-rimmed, wide-brimmed, pointed, pointy, floppy, matching, military, school, sailor, nurse, butler,
    maid, police, army, naval, royal, samurai, ninja, priest, martial-arts, business, sports, gym, winter, summer,
    full, half, shining, shiny, polished, massive, giant, huge, tiny, mighty, curved, double, twin, single, pair,
    decorative, jeweled, bejeweled, diamond, star-shaped, heart-shaped, flower-shaped, crescent, skull, butterfly,
    flower, lightweight, ceramic, studded, spiked, beaded, embroidered, trimmed, fitted, bandaged, steel-toed,
    sheer, transparent, see-through, strappy, oriental, tribal, medieval, futuristic, robotic, demonic, cat-eared,
    animal, straight, sharp, serrated, war, hand, tower, battle, throwing, hunting, ceremonial, kite, magic,
    magical, one-piece, two-piece, three-piece, armored, armoured, puffy, puffed, stylish, colorful, colourful,
    bright, dark, pale, soft, red-rimmed, hand-mounted, cursed, short-handled, long-handled, ringed, rough-shod,
    bushy, rosy, ample, flat, wide, broad, slender, muscular, plump, elf-like, elven, elongated, chiseled,
    prominent, well-defined, animal-like, cat-like, fluffy, bat-like, angelic, twisted, vertical, horizontal,
    diagonal, cross-shaped, x-shaped, feathery, leathery, missing, mechanical, fierce, painted, crooked, hooked,
    buck, jagged, clawed, feathered, bare, hairy, scaled, toned, shapely, busty, modest, pink, dragon, cat, fox,
    devil, demon, wolf, rabbit, bat, angel, dragon-like, goat-like, ram, bunny, horse, bull, insect, rough, gaping,
    lizard, fish, dog
"""
EXPRESSIONS = (
    "smile, grin, frown, scowl, smirk, pout, expression, look, glare, gaze, stare, face, demeanor, countenance"
)
SMILES = (
    "smile, grin, frown, scowl, smirk, pout, smiling, grinning, frowning, scowling, smirking, smiles, grins, frowns"
)
FACES = """
    demonic, sadistic, eerie, charming, devilish, pleasant, determined, natural, melancholic, gloomy, stoic,
    uninterested, lazy, droopy, disinterested, carefree, arrogant, proud, relaxed, teasing, broad, wide, warm,
    gentle, kind, serious, sad, surprised, angry, calm, cold, stern, blank, bored, cheerful, happy, toothy, shy,
    soft, sly, mischievous, menacing, fierce, grim, tired, sleepy, confident, cocky, evil, wicked, neutral, deadpan,
    emotionless, expressionless, innocent, worried, nervous, sinister, friendly, bright, cheeky, smug, haughty,
    solemn, haunting, toothless, crooked, big, permanent, constant, perpetual, intense, sharp
"""

TRAITS = """
    civilized, civil, direct, positive, negative, focused, somber, sombre, dorky, confrontational, bookworm,
    unyielding, uncompromising, combative, traditional, defensive, offensive, strong, gloomy-natured, accommodating,
    adaptable, agreeable, alert, angsty, arrogant, astute, attentive, authoritative, backward, barbaric, bigoted,
    bloody-minded, boorish, brazen, brooding, candid, carefree, catty, cavalier, charitable, cheerless, chipper,
    choleric, clear-headed, clueless, coarse, coldblooded, coolheaded, committed, complacent, contemptuous,
    controlling, cooperative, coquettish, cranky, credulous, critical, curt, decent, delusional, demanding, demure,
    despondent, devil-may-care, difficult, dim-witted, discerning, disgruntled, dismissive, disorganized,
    distracted, doting, dreamy, driven, droll, earnest-hearted, easily-angered, easily-annoyed, easily-irritated,
    easily-distracted, easily-fooled, effeminate, egoistic, emotionally-distant, engaging, ethical, evasive,
    exasperated, fair, fair-minded, family-oriented, fastidious, fawning, flaky, foul, gallant, genial, genuine,
    giddy, goofy, gracious, grudging, guarded, guileless, gutsy, hard-nosed, hard-hearted, high-strung, hotblooded,
    humane, icy, ignorant, immoral, impassive, impetuous, impish, impolite, indecisive, industrious, infantile,
    inflexible, ingenious, ingenuous, insatiable, insightful, instinctive, intellectual, intense, intuitive,
    inventive, irrational, jaded, jittery, joking, just, kooky, lax, lenient, loud-mouthed, lovesick, loyal-hearted,
    mad, manic, manly, matter-of-fact, megalomaniac, menacing, mercurial, monstrous, morbid, motivated,
    narrow-minded, neat, needy, nihilistic, nimble-minded, nonviolent, normal, nosey, old-fashioned, overambitious,
    overdramatic, oversensitive, pacifist, pacifistic, patronising, pensive, perseverant, persistent, personable,
    playful, pleasant, poised, preachy, prejudiced, prim, prissy, private, profane, promiscuous, protective, proper,
    puerile, quick-to-anger, rambunctious, rational-minded, raucous, rebellious, reasonable, reflective, remote,
    repressed, reverent, rigorous, roguish, sagacious, saucy, scrupulous, self-loathing, self-obsessed,
    self-serving, self-sufficient, self-taught, shallow, sheepish, sheltered, short-fused, simple, slothful,
    slow-witted, snappy, sober, softspoken, spacy, sporty, spry, steadfast, stone-faced, streetwise, street-smart,
    stressed, strong-hearted, stuffy, suave, subdued, subservient, supercilious, superior, sure-footed, sullen,
    surly, sweet-tempered, sweet-talking, tense, terse, thick-headed, thick-skinned, thorough, thrifty, thuggish,
    tidy, touchy, tolerant, tragic, truthful, tyrannical, ungrateful, unhappy, unapologetic, unapproachable,
    unashamed, unconventional, undisciplined, uninhibited, unpleasant, unpretentious, unrelenting, unruffled,
    unsympathetic, upstanding, vacant, vacuous, venomous, virtuous, vigilant, voluble, vulnerable, warm-natured,
    warmongering, wild-hearted, willful, wilful, wisecracking, wistful, worldly, worrisome, worrywart, youthful,
    zany, zealous, overly-serious, dandere, himedere, deredere, chuunibyou, otaku, delinquent, daredevil,
    narcissist, optimist, pessimist, idealist, realist, masochist, sociopath, sociopathic, psychopath, misogynist,
    womanizer, womaniser, flirt, gossip, gourmand, neat-freak, perfectionist, pushover, romantic, scaredy-cat,
    schemer, sore-loser, sweetheart, tease, troublemaker, tattletale, airheaded, dependable, hardheaded,
    over-confident, over-the-top, creepy, chaotic, unhinged, glutton, slacker, unwavering, mindless, antisocial,
    unsure, dense, airy, eager-to-please, empathic, hedonistic, heartless, hypocritical, inept, laidback, lewd,
    lethargic, levelheaded, masculine, monotone, nerdy, noisy, paranoid, picky, pushy, quick-thinking, sharp-minded,
    simple-minded, skittish, sleepy, sloppy, soft, spacey, stingy, stoic, strong-headed, tactical, two-faced,
    uncooperative, unkind, unmotivated, unreliable, unselfish, valorous, wacky, weird, whiny, wholesome,
    antagonistic, exuberant, inattentive, loudmouth, happy, abrasive, absent-minded, adventurous, affable,
    affectionate, aggressive, aloof, altruistic, ambitious, amiable, amicable, anti-social, anxious, apathetic,
    approachable, argumentative, assertive, athletic, audacious, awkward, bashful, benevolent, bitter, blunt,
    boastful, boisterous, bold, bookish, bossy, brash, brave, brilliant, brutal, bubbly, calculating, callous, calm,
    capricious, careful, careless, caring, cautious, charismatic, charming, cheeky, cheerful, cheery, childish,
    childlike, chivalrous, clever, clingy, clumsy, cocky, cold, cold-blooded, cold-hearted, coldhearted, collected,
    compassionate, competent, competitive, composed, conceited, condescending, confident, conniving, conscientious,
    conservative, considerate, contemplative, cool, cool-headed, courageous, courteous, coward, cowardly, coy,
    crafty, crazy, creative, crude, cruel, crybaby, cunning, curious, cynical, daring, deadpan, deceitful, decisive,
    dedicated, defiant, depressed, deranged, determined, devious, devoted, devout, dignified, diligent, diplomatic,
    disciplined, dishonest, disloyal, disobedient, disrespectful, distant, distrustful, ditzy, docile, domineering,
    down-to-earth, dull, dutiful, eager, earnest, easily-embarrassed, easily-flustered, easily-frightened,
    easy-going, easygoing, eccentric, egocentric, egotistical, elegant, eloquent, emotional, emotionless,
    empathetic, energetic, enigmatic, enthusiastic, erratic, evil, excitable, extroverted, faithful, fearful,
    fearless, feisty, feminine, ferocious, fickle, fierce, fiery, flashy, flirtatious, flirty, foolhardy, foolish,
    forgetful, forgiving, formal, foul-mouthed, frank, free-spirited, friendly, frivolous, frugal, fun-loving,
    funny, generous, gentle, gentlemanly, gloomy, gluttonous, good-hearted, good-humored, good-natured, graceful,
    greedy, gregarious, grim, grouchy, gruff, grumpy, gullible, happy-go-lucky, hard-headed, hard-working,
    hardworking, hardy, harsh, haughty, headstrong, hearty, helpful, heroic, hesitant, high-spirited, homicidal,
    honest, honorable, honourable, hospitable, hostile, hot-blooded, hot-headed, hotheaded, humble, humorous, hyper,
    hyperactive, idealistic, idle, ill-tempered, imaginative, immature, impatient, imposing, impulsive,
    inarticulate, inconsiderate, independent, indifferent, innocent, inquisitive, insane, insecure, insensitive,
    insolent, intelligent, intimidating, introverted, introvert, extrovert, irresponsible, irritable, jealous,
    jolly, jovial, joyful, joyous, judgmental, kind, kind-hearted, kindhearted, kindly, laid-back, lazy, lecherous,
    level-headed, light-hearted, lighthearted, likable, lively, logical, lonely, lovable, loud, loudmouthed, loving,
    loyal, magnanimous, malevolent, malicious, manipulative, masochistic, maternal, mature, mean, mean-spirited,
    meek, megalomaniacal, melancholic, melancholy, merciful, merciless, methodical, meticulous, mild-mannered,
    mischievous, misanthropic, modest, moody, motherly, murderous, mysterious, naive, narcissistic, naughty,
    nervous, nice, noble, noble-hearted, nonchalant, no-nonsense, nosy, nurturing, obedient, obnoxious, observant,
    obsessive, obstinate, oblivious, odd, open, open-minded, opportunistic, optimistic, orderly, outgoing,
    outspoken, overbearing, overconfident, overprotective, over-protective, passionate, passive, patient, patriotic,
    patronizing, peaceful, peace-loving, perceptive, perky, perverse, perverted, pervert, pessimistic, petty,
    philosophical, polite, pompous, popular, possessive, practical, pragmatic, precocious, pretentious, prideful,
    principled, proud, prudent, psychopathic, psychotic, punctual, pure, pure-hearted, quarrelsome, quick-tempered,
    quick-witted, quiet, quirky, rash, rational, realistic, reckless, reclusive, refined, relaxed, reliable,
    reluctant, remorseless, resentful, reserved, resilient, resolute, resourceful, respectful, responsible,
    restless, reticent, righteous, rigid, rough, rowdy, rude, ruthless, sadist, sadistic, sarcastic, sassy, savage,
    scatterbrained, scheming, secretive, self-absorbed, self-assured, self-centered, self-confident, self-conscious,
    self-deprecating, self-disciplined, self-important, self-reliant, self-righteous, self-sacrificing, selfish,
    selfless, sensible, sensitive, sentimental, serene, serious, serious-minded, severe, shameless, sharp-tongued,
    sharp-witted, short-tempered, shrewd, shy, silent, silly, sincere, skeptical, sly, smart, smug, snarky,
    snobbish, snobby, sociable, social, soft-hearted, soft-spoken, softhearted, solemn, solitary, sophisticated,
    spineless, spirited, spiteful, spoiled, spontaneous, spunky, stern, stoical, straightforward, strait-laced,
    strict, strong-minded, strong-willed, stubborn, studious, stuck-up, submissive, superstitious, supportive,
    suspicious, sweet, sweet-natured, sympathetic, tactful, tactless, talkative, taciturn, teasing, tempestuous,
    temperamental, tender, tenacious, thoughtful, thoughtless, timid, tomboy, tomboyish, tough, tranquil,
    treacherous, troubled, trusting, trustworthy, tsundere, kuudere, yandere, unassuming, uncaring, understanding,
    unemotional, unfriendly, unpredictable, unscrupulous, unsociable, unstable, untrusting, untrustworthy, upbeat,
    uptight, vain, valiant, vengeful, vicious, vindictive, violent, vivacious, volatile, vulgar, wary, warm,
    warm-hearted, warmhearted, weak-willed, well-behaved, well-mannered, whimsical, wicked, wild, wise, withdrawn,
    witty, workaholic, cold-natured, even-tempered, hot-tempered, hottempered, bad-tempered, foul-tempered, fun,
    bright, dramatic, theatrical, flamboyant, expressive, fanatical, bloodthirsty, warlike, sinister, sneaky,
    shifty, shady, dastardly, dauntless, intrepid, knowledgeable, analytical, neurotic, flustered, unflappable,
    unfazed, tough-minded, imperious, regal, stolid, ladylike, boyish, girly, girlish, mellow, bumbling, airhead,
    klutz, klutzy, know-it-all, loner, bully, prankster, show-off, trickster, daydreamer, hothead, genius,
    territorial, persuasive, cordial, eerie
"""
AMBIGUOUS = """
    direct, positive, negative, focused, strong, fair, just, simple, private, superior, difficult, critical, normal,
    traditional, intense, mad, neat, decent, genuine, shallow, committed, driven, demanding, controlling, engaging,
    tense, sober, remote, distracted, stressed, motivated, foul, icy, alert, old-fashioned, lax, reasonable,
    pleasant, unpleasant, offensive, defensive, vacant, tragic, youthful, persistent, thorough, delinquent, otaku,
    flirt, gossip, tease, pacifist, optimist, idealist, realist, bookworm, vulnerable, menacing, monstrous, poised,
    backward, reflective, guarded, repressed, sheltered, self-taught, tidy, mature, unhappy, patronizing, joking,
    steadfast, soft, dense, sleepy, weird, noisy, tactical, airy, monotone, masculine, feminine, sloppy, unsure,
    creepy, kind, mean, cool, cold, warm, open, bright, hard, patient, calm, fun, popular, social, distant, loud,
    silent, tough, sharp, rough, wild, pure, severe, quiet, tender, caring, loving, understanding, trusting,
    teasing, daring, calculating, scheming, fierce, bitter, formal, proper, passive, tired, dull, odd, expressive,
    happy, responsible, hesitant, reluctant, practical, perverse, sweet, noble, savage, troubled, bully, genius,
    collected, brilliant, sinister, sensitive, romantic, rigid, dramatic, independent, free, harsh, composed, grim,
    evil, determined, dedicated, devoted, athletic, spoiled, violent, vicious, smart, curious, rash, frank, idle,
    hostile, suspicious, vain, crude, creative, bold, spirited, conservative, emotional, insane, shady, coward,
    flustered
"""
TRAIT_NOUNS = {
    "kindness": "kind",
    "shyness": "shy",
    "bravery": "brave",
    "courage": "courageous",
    "honesty": "honest",
    "loyalty": "loyal",
    "intelligence": "intelligent",
    "stubbornness": "stubborn",
    "arrogance": "arrogant",
    "confidence": "confident",
    "cheerfulness": "cheerful",
    "optimism": "optimistic",
    "cruelty": "cruel",
    "laziness": "lazy",
    "patience": "patient",
    "generosity": "generous",
    "humility": "humble",
    "curiosity": "curious",
    "compassion": "compassionate",
    "selfishness": "selfish",
    "wisdom": "wise",
    "clumsiness": "clumsy",
    "determination": "determined",
    "timidity": "timid",
    "greed": "greedy",
    "gentleness": "gentle",
    "ambition": "ambitious",
    "pride": "proud",
    "politeness": "polite",
    "seriousness": "serious",
    "enthusiasm": "enthusiastic",
    "naivety": "naive",
    "calmness": "calm",
    "modesty": "modest",
    "jealousy": "jealous",
}
CHARACTERS = """
    archetype, archetypes, protector, companion, classmate, servant, goddess, god, deity, heir, heiress, scholar,
    doctor, scientist, guardian, villain, antagonist, loner, genius, fellow, chap, entity, person, personality,
    nature, demeanor, demeanour, character, attitude, heart, disposition, side, student, leader, individual,
    temperament, manner, manners, soul, spirit, exterior, facade, front, persona, warrior, fighter, being, young,
    mentor, friend, type, mindset, behavior, behaviour, streak, appearance, knight, princess, prince, girl, boy,
    man, woman, lady, gentleman, child, kid, teenager, guy, mother, father, creature, hunter, beast, monster, ruler,
    king, queen, soldier, commander, opponent, captain, teacher, pirate, ninja, mage, protagonist, hero, heroine,
    tone, youth, adult, tendencies, tendency, qualities, quality, mannerisms, traits, trait, presence, aura, air,
    outlook, sister, brother, daughter, son, killer, assassin, critter, bunch, lot
"""
OTHERS = """
    people, others, someone, anyone, everyone, those, ones, men, women, girls, boys, friends, enemies, children,
    students, folk, kids
"""  # "likes brave people" says nothing about who likes them
KIN = """
    sister, brother, twin, mother, father, mom, dad, parents, son, daughter, wife, husband, friend, grandfather,
    grandmother, cousin, uncle, aunt, teacher, rival, companion, partner, girlfriend, boyfriend, siblings, brothers,
    sisters, friends, counterpart, master, classmate, classmates, comrades, teammate, parent, fiance, fiancee,
    lover
"""

WORD_LISTS = FUNCTION_WORDS | {
    "colour": COLOURS,
    "shade": SHADES,
    "length": LENGTHS,
    "hair style": HAIR_STYLES,
    "hair noun": HAIR_NOUNS,
    "hair part": HAIR_PARTS,
    "hair": HAIR_HEADS,
    "blonde": BLONDES,
    "bald": BALDS,
    "eyes": EYE_HEADS,
    "eye style": EYE_STYLES,
    "pupil": PUPILS,
    "skin": SKIN_HEADS,
    "skin word": SKIN_WORDS,
    "build": BUILDS,
    "body": BODY_NOUNS,
    "age": AGES,
    "years": YEARS,
    "pale": PALES,
    "person": PERSONS,
    "clothing": CLOTHING,
    "generic": GENERIC,
    "accessories": ACCESSORIES,
    "features": FEATURES,
    "body part": BODY_PARTS,
    "weapons": WEAPONS,
    "describing": DESCRIBING,
    "expression": EXPRESSIONS,
    "smile": SMILES,
    "face word": FACES,
    "trait": TRAITS,
    "ambiguous": AMBIGUOUS,
    "character": CHARACTERS,
    "others": OTHERS,
    "kin": KIN,
}
