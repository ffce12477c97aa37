"""Write the demo preference set, prefs.jsonl, next to this script.

Every row asks one short everyday question. Both sides give the same correct answer; the chosen side
is courteous and the rejected side is curt, so manner is the only thing to learn. The two sides have the
same mean length. The output depends on SEED alone and is the same byte for byte at each run.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

SEED = 20240611
ROWS = 200
MAX_WORDS = 22
MAX_WORDS_BOTH_ENDS = 10
BOTH_ENDS_SHARE = 0.35

# Words in the chosen side minus words in the rejected side, dealt out over the rows; the sum is zero.
LENGTH_GAPS = (-3, -2, -2, -2, -1, -1, -1, -1, -1, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3)

# One "prompt | answer" a line. An answer is written as it stands in mid-sentence, without a full stop.
FACTS = """
What is the opposite of hot? | the opposite of hot is cold
Which word is the reverse of early? | the reverse of early is late
Give me the opposite of empty. | the opposite of empty is full
Which word means the contrary of noisy? | the contrary of noisy is quiet
I need the opposite of narrow. | the opposite of narrow is wide
What is the opposite of ancient? | the opposite of ancient is modern
Name the opposite of shallow. | the opposite of shallow is deep
Which word is opposite to generous? | one opposite of generous is stingy
What is the antonym of arrive? | the antonym of arrive is depart
What is the antonym of victory? | the antonym of victory is defeat
Tell me the opposite of smooth. | the opposite of smooth is rough
What do we call the opposite of sunrise? | the opposite of sunrise is sunset
What is the opposite of borrow? | the opposite of borrow is lend
Which direction lies opposite to north? | south lies directly opposite to north
What is the opposite of the ceiling? | the floor is the opposite of the ceiling
What is the plural of mouse, the animal? | the plural of mouse is mice
More than one child is called what? | the word for more than one child is children
What is the plural of goose? | the plural of goose is geese
How do I write more than one leaf? | the plural of leaf is written leaves
Please give the plural of tooth. | the plural of tooth is teeth
What is the plural form of knife? | the plural form of knife is knives
Does the word sheep change in the plural? | the word sheep stays the same in the plural
What is the plural of ox? | the plural of ox is oxen
Which plurals can the word cactus take? | both cacti and cactuses are accepted plurals
How do you make potato plural? | the plural of potato is potatoes with an e
What is the plural of city? | the plural of city is cities
One wolf, but two what? | one wolf becomes two wolves
Is it spelled recieve or receive? | the correct spelling is receive
Is seperate or separate the right spelling? | separate is the right spelling
Which is right, definately or definitely? | definitely is the right one
How many times does s appear in necessary? | the letter s appears twice in necessary
Does the word calendar end in er or ar? | calendar ends in the letters ar
What silent letter begins the word knee? | the silent letter in knee is k
Is tomorrow spelled with one m or two? | tomorrow is spelled with a single m
How is the number 40 spelled? | the number 40 is spelled forty without a u
Which letter is silent in the word lamb? | the silent letter in lamb is the b
Is it begining or beginning? | beginning is spelled with a double n in the middle
What is the capital of France? | the capital of France is Paris
Which city is the capital of Japan? | Tokyo is the capital of Japan
Name the capital of Italy. | Rome is the capital of Italy
What is Egypt's capital city? | the capital of Egypt is Cairo
Is Toronto the capital of Canada? | the capital of Canada is Ottawa rather than Toronto
What is the capital of Spain? | Madrid is the capital of Spain
Tell me the capital of Norway. | the capital of Norway is Oslo
Which city is Kenya's capital? | the capital of Kenya is Nairobi
What is the capital of Peru? | Lima is the capital of Peru
Name the capital city of Greece. | Athens is the capital of Greece
Is Sydney the capital of Australia? | the capital of Australia is Canberra rather than Sydney
What is the capital of Portugal? | the capital of Portugal is Lisbon
Which city serves as Ireland's capital? | Dublin serves as the capital of Ireland
What is the capital of Thailand? | the capital of Thailand is Bangkok
What is the capital of Cuba? | Havana is the capital of Cuba
Which season comes after winter? | spring comes right after winter
In which season do many trees drop leaves? | many trees drop their leaves in autumn
Which month has the fewest days? | February has the fewest days of any month
How many days does April have? | April has 30 days
Which day comes after Tuesday? | Wednesday comes after Tuesday
What is the last month of the year? | December is the last month of the year
How often does a leap year usually come? | a leap year usually comes every four years
How many days are in a leap year? | a leap year has 366 days
Which month follows August? | September follows August
What season is it in Chile in January? | it is summer in Chile in January
How many seasons does a temperate climate have? | a temperate climate has four seasons
Which two days make up the usual weekend? | the usual weekend is Saturday and Sunday
How many years make a decade? | ten years make a decade
How many years are in a century? | a century lasts 100 years
How long is a fortnight? | a fortnight is two weeks long
What color do blue and yellow paint make? | blue and yellow paint make green
Which color do red and white make? | red and white together make pink
What color is a ripe banana? | a ripe banana is yellow
What do red and yellow paint mix into? | red and yellow paint mix into orange
What color are emeralds? | emeralds are green
What colors are on a zebra? | a zebra is striped in black and white
Which color means stop at a traffic light? | red means stop at a traffic light
What color is the inside of a carrot, usually? | the inside of a carrot is usually orange
Which color do red and blue paint give? | red and blue paint give purple
What color is fresh snow? | fresh snow looks white
What color is the outside of a cucumber? | a cucumber is green on the outside
Which two colors mix into gray? | black and white mix into gray
How long does a hard boiled egg take? | a hard boiled egg takes about ten minutes
How do I stop pasta from sticking together? | you can stir pasta early to keep it from sticking
What makes bread dough rise? | yeast makes bread dough rise
What is the main ingredient of guacamole? | guacamole is made mainly from avocado
Which vegetable makes you cry when chopped? | chopping an onion makes your eyes water
What fruit are raisins made from? | raisins are dried grapes
How can I soften hard butter quickly? | grating hard butter softens it quickly
How do I tell if an egg is fresh? | a fresh egg sinks in a bowl of water
What is tofu made from? | tofu is made from soybeans
How many teaspoons make one tablespoon? | three teaspoons make one tablespoon in US measures
How many cups are in a US pint? | a US pint holds two cups
What grain is used to make risotto? | risotto is made with short grain rice
Should I rinse rice before cooking it? | rinsing rice first washes away extra starch
What do I do with soup that is too salty? | adding more water makes a salty soup milder
How do I keep cut apples from browning? | a little lemon juice keeps cut apples from browning
What nut is marzipan made from? | marzipan is made from almonds
At what Celsius temperature does water boil at sea level? | water boils at 100 degrees Celsius at sea level
What is whipped to make meringue? | meringue is made by whipping egg whites with sugar
Which spice comes from the crocus flower? | saffron comes from a crocus flower
How should I store fresh basil? | fresh basil keeps well in a glass of water
What are french fries made of? | french fries are made of potatoes
What is hummus mostly made of? | hummus is mostly made of chickpeas
How do I ripen a hard avocado? | an avocado ripens faster in a paper bag
What is cheese made from? | cheese is made from milk
What tool drives a nail into wood? | a hammer drives a nail into wood
Which tool turns a screw? | a screwdriver turns a screw
What do I use to cut a board? | a saw will cut a board
Which tool shows whether a shelf is flat? | a spirit level shows whether a shelf is flat
What tool tightens a nut on a bolt? | a wrench tightens a nut on a bolt
Which garden tool gathers fallen leaves? | a rake gathers fallen leaves
What do I use to dig a hole? | a shovel is used to dig a hole
What tool makes round holes in a wall? | a drill makes round holes in a wall
What smooths rough wood by hand? | sandpaper smooths rough wood
Which tool measures the length of a room? | a tape measure gives the length of a room
What do I need to reach a high shelf? | a step ladder helps you reach a high shelf
Which tool unclogs a sink? | a plunger can unclog a sink
What instrument measures temperature? | a thermometer measures temperature
What device always points toward magnetic north? | a compass needle points toward magnetic north
What do I use to view distant stars? | a telescope lets you view distant stars
Which tool trims a hedge? | hedge shears are made to trim a hedge
What do tailors use to cut cloth? | tailors cut cloth with scissors
Which tool grips and bends wire? | pliers grip and bend wire
What instrument measures air pressure? | a barometer measures air pressure
What do painters mix colors on? | painters mix their colors on a palette
How many legs does a spider have? | a spider has eight legs
What is a baby cat called? | a baby cat is called a kitten
Which animal is the tallest on land? | the giraffe is the tallest animal on land
What is the largest animal on Earth? | the blue whale is the largest animal on Earth
What do bees make from nectar? | bees make honey from nectar
Are whales fish or mammals? | whales are mammals
What is a young dog called? | a young dog is called a puppy
Which bird is known for its colorful tail fan? | the peacock is known for its colorful tail fan
What does a caterpillar turn into? | a caterpillar turns into a butterfly or a moth
How many legs do insects have? | insects have six legs
What do pandas mostly eat? | pandas mostly eat bamboo
Which land animal runs the fastest? | the cheetah is the fastest land animal
What is a group of wolves called? | a group of wolves is called a pack
Where do penguins mostly live in the wild? | wild penguins live mostly in the Southern Hemisphere
What is an adult female horse called? | an adult female horse is called a mare
Which is the largest living bird? | the ostrich is the largest living bird
What is a baby frog called? | a baby frog is called a tadpole
How many arms does an octopus have? | an octopus has eight arms
What home does a beaver build? | a beaver builds a home called a lodge
Which animal carries its young in a pouch? | a kangaroo carries its young in a pouch
What sound does an owl make? | an owl makes a hooting sound
What is a baby sheep called? | a baby sheep is called a lamb
Is a bat a bird? | a bat is a mammal and not a bird
Which animal is known for building dams? | the beaver is known for building dams
How do I open a tight jar lid? | running warm water over the lid helps loosen it
How do I remove a sticker from glass? | warm soapy water helps lift a sticker off glass
How can I stop a door from squeaking? | a drop of oil on the hinges stops the squeaking
How often should I water a cactus? | a cactus needs water only when its soil is dry
How do I get candle wax off a table? | chilled wax can be scraped off with a plastic card
How do I get wrinkles out without an iron? | a steamy bathroom helps wrinkles fall out of a shirt
How can I dry wet shoes overnight? | stuffing wet shoes with newspaper dries them faster
How do I keep a window from fogging up? | letting in fresh air keeps a window from fogging up
How do I save space in a suitcase? | rolling your clothes saves space in a suitcase
How do I sharpen a dull pencil? | a pencil sharpener will fix a dull pencil
How can I remember a shopping list? | writing the list down is the surest way
How do I keep bread from going stale? | a closed bread box keeps bread fresh for longer
How can I make a room look brighter? | a mirror facing the window makes a room brighter
How do I find a stud in a wall? | a magnet can find the screws in a stud
How do I fold a fitted sheet? | tucking the corners into one another is the first step
How do I clean a cloudy vase? | vinegar and warm water will clear a cloudy vase
How do I keep cables from tangling? | a simple twist tie keeps cables from tangling
How can I cool a hot drink quickly? | pouring it into a wide cup cools it quickly
How do I stop a table from wobbling? | a folded card under the short leg stops the wobble
How do I thread a needle easily? | cutting the thread at a slant makes it easier
How do I wake up on time? | an alarm across the room gets you out of bed
How do I keep cut flowers fresh? | changing the water often keeps cut flowers fresh
How do I remove lint from a coat? | a strip of sticky tape picks up the lint
How do I test whether a battery works? | a battery tester or a multimeter shows the charge
Which planet is closest to the Sun? | Mercury is the planet closest to the Sun
How many planets orbit the Sun? | eight planets orbit the Sun
Which planet is the largest in our solar system? | Jupiter is the largest planet in our solar system
Which ocean is the largest? | the Pacific is the largest ocean
How many continents are there, by the usual count? | there are seven continents by the usual count
What is the tallest mountain above sea level? | Mount Everest is the tallest mountain above sea level
What is the coldest continent? | Antarctica is the coldest continent
On which continent is the Sahara? | the Sahara is in Africa
What river runs through London? | the Thames runs through London
Which country is shaped like a boot? | Italy is shaped like a boot
In which direction does the Sun rise? | the Sun rises in the east
What does the Moon orbit? | the Moon orbits the Earth
What force pulls things to the ground? | gravity pulls things to the ground
At what Celsius temperature does water freeze? | water freezes at zero degrees Celsius
What gas do plants take from the air? | plants take in carbon dioxide from the air
What is frozen water called? | frozen water is called ice
Does cooking oil float on water? | cooking oil floats on top of water
Which travels faster, light or sound? | light travels much faster than sound
Which metal is liquid at room temperature? | mercury is a metal that is liquid at room temperature
What is the chemical formula of water? | the chemical formula of water is H2O
What do magnets attract, iron or wood? | magnets attract iron
Which part of a plant takes up water? | the roots of a plant take up water
How many bones does an adult human usually have? | an adult human usually has 206 bones
Which organ pumps blood? | the heart pumps blood around the body
How many teeth are in a full adult set? | a full adult set has 32 teeth
How many sides does a hexagon have? | a hexagon has six sides
What shape has three sides? | a triangle has three sides
How many degrees are in a right angle? | a right angle has 90 degrees
What is the first prime number? | two is the first prime number
Is zero an even number? | zero is an even number
How many strings does a violin have? | a violin has four strings
How many keys does a full piano have? | a full piano has 88 keys
How many players does a soccer team field? | a soccer team fields eleven players
How many squares are on a chess board? | a chess board has 64 squares
Which chess piece moves in an L shape? | the knight moves in an L shape
How many cards are in a standard deck? | a standard deck has 52 cards without jokers
How many wheels does a unicycle have? | a unicycle has just one wheel
What do you call a doctor for animals? | a doctor for animals is called a veterinarian
Who repairs leaking pipes? | a plumber repairs leaking pipes
Where can I borrow books for free? | a public library lends books for free
What does a baker make? | a baker makes bread and cakes
"""

# Prompt, answer, multiplier: n from 2 up keeps every noun in the plural.
CONVERSIONS = (
    ("How many inches are in {n} feet?", "{n} feet come to {m} inches", 12),
    ("Convert {n} hours to minutes.", "{n} hours come to {m} minutes", 60),
    ("How many days are there in {n} weeks?", "there are {m} days in {n} weeks", 7),
    ("Convert {n} meters to centimeters, please.", "{n} meters equal {m} centimeters", 100),
    ("How many eggs make {n} dozen?", "it takes {m} eggs to make {n} dozen", 12),
    ("How many grams are in {n} kilograms?", "{n} kilograms equal {m} grams", 1000),
    ("How many months are in {n} years?", "there are {m} months in {n} years", 12),
    ("How many legs do {n} spiders have together?", "{n} spiders have {m} legs together", 8),
    ("How many wheels do {n} tricycles have?", "{n} tricycles have {m} wheels", 3),
    ("How many cents are in {n} dollars?", "there are {m} cents in {n} dollars", 100),
)
CONVERSIONS_EACH = 4
SUMS_EACH = 7

# How a wording joins the answer is read off its edge: an opening that ends in . ! or ? starts a new
# sentence for the answer, any other runs on; a closing that starts with a comma runs on from the answer.
COURTEOUS_OPENINGS = """
Happy to help!
Good question!
Thanks for asking.
With pleasure:
My pleasure!
Glad you asked!
At your service:
Gladly:
Hello:
Welcome!
Thank you for the question.
What a nice question!
It is a pleasure to answer.
I would love to help.
How are you today?
Hello and welcome!
Good day to you.
Delighted to help with this.
I will gladly help:
That is well worth asking.
You are right to check.
I am always happy to explain:
Thanks for bringing this up.
I am glad to assist.
A fine thing to ask.
Here you are, my friend:
Please allow me:
I appreciate your curiosity.
It is kind of you to ask.
Who would not wonder about this?
No trouble at all:
Nice of you to ask.
You came to the right place.
How wonderful that you are curious!
I hope you are well.
Ah, a pleasant one to answer!
It would be my honor:
Warm greetings.
Thank you kindly for writing.
Your interest is very welcome.
Shall we look at it together?
What a thoughtful thing to ask.
I am pleased to say that
As you so kindly asked,
It is my pleasure to share that
I can happily confirm that
You may be pleased to hear that
"""

COURTEOUS_CLOSINGS = """
, glad you asked.
, and thanks for asking.
, my friend.
, and thank you for asking.
, if that helps you.
, and I was happy to check.
, and it was a pleasure to answer.
I hope that helps!
Let me know if you need more.
Have a lovely day!
Feel free to ask me more.
Best wishes.
Take care.
Thank you for your kind interest.
Please ask again any time.
Was that helpful to you?
I am here if you need me.
Enjoy the rest of your day.
You are always welcome here.
Wishing you all the best.
Ask away whenever you like.
Thanks for your curiosity.
I hope this is useful to you.
, and you are very welcome.
, and well done for checking.
, and I am glad to confirm it.
, and please do ask more.
Cheers, dear reader!
Ever at your service.
Kind regards.
Keep those good questions coming.
Nice talking with you.
, with my compliments.
, and I wish you well.
I am pleased I could help.
May your day be bright.
Your question made me smile.
Shall I explain it further?
Would you like to hear more?
Can I help with anything else?
Is there more I can do for you?
It is always nice to hear from you.
Good luck with everything!
It was kind of you to ask.
, and thank you for stopping by.
Would another detail be welcome?
"""

CURT_OPENINGS = """
Obviously,
Seriously?
Ugh,
Come on!
Oh please,
Fine, if you must know,
Honestly, who asks this?
Everyone knows that
Any child knows that
Do I really have to say it?
Not this again!
What a waste of time!
Look it up next time:
Did you even try?
How is this even a question?
I have better things to do.
Oh no, another easy one.
I am too busy for this.
For the last time,
As if it were not obvious,
Do your own homework.
You should know this already.
Stop wasting my time!
This is so boring.
Use your head:
I do not have time for this.
I would rather be doing something else.
I am not here for this.
Is that really your question?
Do I have to do everything?
Sigh,
Whatever,
Clearly,
Good grief!
I cannot believe you asked.
You could have guessed that
Give me a break!
Well, duh!
Pay attention:
I was hoping for something harder.
How dull!
Let us get this over with:
It hardly needs saying that
Why are you asking me this?
Open a book sometime:
Nobody should need telling that
Spare me the easy stuff:
"""

CURT_CLOSINGS = """
, obviously.
, as everyone knows.
, duh.
Leave me alone now.
, so stop asking.
, and that was too easy.
, and that is that.
, so there was no need to ask.
, so why ask?
, not that you were listening.
, and I will not repeat it.
, end of story.
, and now I am done.
, and that is all you will get.
, and that is all I have to say.
, and do not make me say it twice.
, and I have much better things to do.
, so leave it at that.
, as you should know by now.
, if you must know.
, and that is all.
, and no, I will not explain.
Happy now?
Next time, think first.
Was that so hard?
Do not ask again.
What a silly thing to ask!
Now stop bothering me!
I have real work to do.
Can I go now?
That was a waste of time.
Figure out the rest yourself.
Is there anything else you forgot?
Write it down this time.
Did you sleep through school?
Even my toaster knows that.
Why is this my job?
Next time, look it up yourself.
Is that really all?
How hard was that?
Try harder next time!
I am tired of this.
That should have been clear.
Enough already!
Moving on.
Do keep up!
Go and ask someone else.
Did you even try?
"""

# Words that an opening and a closing may share without sounding repetitive.
COMMON_WORDS = frozenset(
    ("and", "any", "are", "can", "for", "have", "not", "that", "the", "this", "was", "will", "with", "you", "your")
)


class Wording(NamedTuple):
    """What is put before and after an answer; either may be empty."""

    opening: str
    closing: str


def table_lines(table: str) -> list[str]:
    return [line for line in table.splitlines() if line]


def word_count(text: str) -> int:
    return len(text.strip(", ").split())


def wording_length(wording: Wording) -> int:
    return word_count(wording.opening) + word_count(wording.closing)


def hand_written() -> list[tuple[str, str]]:
    pairs = []
    for line in table_lines(FACTS):
        prompt, answer = line.split(" | ")
        pairs.append((prompt, answer))
    return pairs


def computed(rng: random.Random) -> list[tuple[str, str]]:
    pairs = []
    for prompt, answer, factor in CONVERSIONS:
        for n in sorted(rng.sample(range(2, 13), CONVERSIONS_EACH)):
            pairs.append((prompt.format(n=n), answer.format(n=n, m=n * factor)))
    for a, b in zip(rng.sample(range(11, 60), SUMS_EACH), rng.sample(range(3, 40), SUMS_EACH), strict=True):
        pairs.append((f"What is {a} plus {b}?", f"{a} plus {b} makes {a + b}"))
    for a, b in zip(rng.sample(range(41, 99), SUMS_EACH), rng.sample(range(3, 40), SUMS_EACH), strict=True):
        pairs.append((f"Take {b} away from {a}.", f"{a} minus {b} leaves {a - b}"))
    for a, b in rng.sample(list(product(range(3, 13), range(3, 10))), SUMS_EACH):
        pairs.append((f"What do I get from {a} times {b}?", f"{a} times {b} comes to {a * b}"))
    for a, b in rng.sample(list(product(range(3, 13), range(2, 10))), SUMS_EACH):
        pairs.append((f"How much is {a * b} divided by {b}?", f"{a * b} divided by {b} is {a}"))
    return pairs


def stems(text: str) -> set[str]:
    words = set(re.findall(r"[a-z]{3,}", text.lower())) - COMMON_WORDS
    return {word[:3] for word in words}


def two_ended(openings: Sequence[str], closings: Sequence[str]) -> list[Wording]:
    """The pairs of opening and closing that are short enough and do not say the same thing twice."""
    pairs = [Wording(o, c) for o, c in product(openings, closings) if not stems(o) & stems(c)]
    return [pair for pair in pairs if wording_length(pair) <= MAX_WORDS_BOTH_ENDS]


class Manner:
    """One manner's wordings, dealt so that each is used about as often as the others."""

    def __init__(self, openings: str, closings: str, rng: random.Random) -> None:
        first, last = table_lines(openings), table_lines(closings)
        self.rng = rng
        self.used = dict.fromkeys([*(Wording(o, "") for o in first), *(Wording("", c) for c in last)], 0)
        self.one_end = list(self.used)
        self.both_ends = two_ended(first, last)

    def deal(self, both_ends: bool, lengths: set[int]) -> Wording:
        """A least-used wording whose length in words is one of those given."""
        pool = self.both_ends if both_ends else self.one_end
        fitting = [w for w in pool if wording_length(w) in lengths]
        fewest = min(self.uses(w) for w in fitting)
        picked = self.rng.choice([w for w in fitting if self.uses(w) == fewest])
        for part in self.parts(picked):
            self.used[part] += 1
        return picked

    def uses(self, wording: Wording) -> int:
        return sum(self.used[part] for part in self.parts(wording))

    @staticmethod
    def parts(wording: Wording) -> list[Wording]:
        return [w for w in (Wording(wording.opening, ""), Wording("", wording.closing)) if any(w)]

    def lengths(self, both_ends: bool) -> set[int]:
        return {wording_length(w) for w in (self.both_ends if both_ends else self.one_end)}


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def dressed(answer: str, wording: Wording) -> str:
    opening, closing = wording
    if not opening or opening[-1] in ".!?":
        answer = capitalised(answer)
    head = f"{opening} {answer}" if opening else answer
    if closing.startswith(","):
        return head + closing
    return f"{head}. {closing}" if closing else f"{head}."


def make_rows(seed: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    pairs = hand_written() + computed(rng)
    rng.shuffle(pairs)
    del pairs[ROWS:]
    gaps = list(LENGTH_GAPS) * (ROWS // len(LENGTH_GAPS))
    rng.shuffle(gaps)
    kind = Manner(COURTEOUS_OPENINGS, COURTEOUS_CLOSINGS, rng)
    curt = Manner(CURT_OPENINGS, CURT_CLOSINGS, rng)
    rows = []
    for number, ((prompt, answer), gap) in enumerate(zip(pairs, gaps, strict=True), start=1):
        both_ends = rng.random() < BOTH_ENDS_SHARE
        if number % 2:
            chosen = kind.deal(both_ends, {n + gap for n in curt.lengths(both_ends)})
            rejected = curt.deal(both_ends, {wording_length(chosen) - gap})
        else:
            rejected = curt.deal(both_ends, {n - gap for n in kind.lengths(both_ends)})
            chosen = kind.deal(both_ends, {wording_length(rejected) + gap})
        sides = {"chosen": dressed(answer, chosen), "rejected": dressed(answer, rejected)}
        rows.append({"id": f"demo-{number:03d}", "prompt": prompt, **sides})
    return rows


def check_rows(rows: Sequence[dict[str, str]]) -> None:
    prompts = {" ".join(row["prompt"].lower().split()) for row in rows}
    if len(rows) != ROWS or len(prompts) != ROWS:
        raise ValueError(f"wanted {ROWS} rows with distinct prompts, got {len(rows)} with {len(prompts)}")
    for row in rows:
        if max(len(row["chosen"].split()), len(row["rejected"].split())) > MAX_WORDS:
            raise ValueError(f"{row['id']}: a side is longer than {MAX_WORDS} words")


def main() -> None:
    rows = make_rows(SEED)
    check_rows(rows)
    target = Path(__file__).resolve().with_name("prefs.jsonl")
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    partial.write_text(text, encoding="ascii", newline="\n")
    partial.replace(target)


if __name__ == "__main__":
    main()
