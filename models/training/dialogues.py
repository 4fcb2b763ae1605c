# SPDX-License-Identifier: Apache-2.0
"""Whole dialogues: a system message, offered tools, and the turns, in OpenAI's message format.

`dialogue(world)` makes a training dialogue; `evaluation_item(world)` one request with its expected call and answer.
"""
import json

import facts
from entities import show
from records import NOUNS, Invented, Record
from tools import COMMON, WEIGHTS, Binary, Calculator, Clock, Contact, Event, Files, Message, Python, Search, Task, Units, Weather, result_json

SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are Millrace Tiny, a small assistant.", "Answer briefly.", "Be short and precise.", "You are a friendly assistant. Use tools when they help.",
    "You help people with their daily work.", "You are a careful assistant. Do not guess.", "Answer in one sentence.",
)


def system_message(w):
    if w.chance(0.12):
        return f"You are {w.name()}, the assistant of {w.name()}."
    return w.pick(SYSTEMS)


def no_tool_text(w):
    """A question that needs no tool, and its answer."""
    form = w.rng.random()
    group = facts.MILLRACE if form < 0.4 else facts.SMALL_TALK if form < 0.62 else facts.SELF if form < 0.72 else facts.EVERYDAY
    if form < 0.84:
        asks, answer = w.pick(group)
        ask = w.pick(asks)
        if w.chance(0.12):
            ask = ask.lower()
        elif w.chance(0.06) and ask.endswith("?"):
            ask = "Hi! " + ask
        return ask, answer
    if form < 0.92:
        return w.pick(facts.HARMFUL_ASKS).format(w.pick(facts.HARMFUL)), facts.REFUSAL
    topic = w.pick(facts.UNKNOWN_TOPICS) if w.chance(0.6) else w.name()
    return w.pick(facts.UNKNOWN_ASKS).format(topic), facts.UNKNOWN


def small_sum(w):
    """Arithmetic that the model does in its head, or says that it cannot."""
    if w.chance(0.18):
        a, b = w.rng.randint(1000, 999999), w.rng.randint(100, 999999)
        ask = w.pick(["What is {} {} {}?", "Calculate {} {} {}.", "How much is {} {} {}?"]).format(a, w.pick(["*", "+", "times", "/", "-"]), b)
        return ask, "That is too big for me without a calculator tool."
    op = w.pick("+++--*")
    if op == "*":
        a, b = w.rng.randint(0, 10), w.rng.randint(0, 10)
    else:
        most = w.pick([10, 20, 20, 20, 20, 50, 50, 50, 99])
        a, b = w.rng.randint(0, most), w.rng.randint(0, most)
    if op == "-" and b > a:
        a, b = b, a
    said = {"+": ["+", "+", "plus", "and"], "-": ["-", "-", "minus"], "*": ["*", "*", "times", "x"]}[op]
    word = w.pick(said)
    if word == "and":
        ask = f"Add {a} and {b}."
    else:
        ask = w.pick(["What is {} {} {}?", "What is {} {} {}?", "How much is {} {} {}?", "Calculate {} {} {}.", "{} {} {}", "{} {} {} = ?", "what is {} {} {}"]).format(a, word, b)
        if not word.isalpha() and w.chance(0.25):
            ask = ask.replace(f" {word} ", word)
    value = {"+": a + b, "-": a - b, "*": a * b}[op]
    return ask, f"{a} {op} {b} = {value}."


def small_time(w):
    form = w.rng.random()
    if form < 0.3:
        hours = w.rng.randint(2, 12)
        return w.pick(["How many minutes are {} hours?", "How many minutes are in {} hours?"]).format(hours), f"{hours} hours are {hours * 60} minutes."
    if form < 0.5:
        weeks = w.rng.randint(2, 10)
        return w.pick(["How many days are {} weeks?", "How many days are in {} weeks?"]).format(weeks), f"{weeks} weeks are {weeks * 7} days."
    if form < 0.7:
        hour = w.rng.randint(1, 11)
        return w.pick(["What is {} pm in 24-hour time?", "How do I write {} pm with 24 hours?"]).format(hour), f"{hour} pm is {hour + 12}:00."
    hour, minute, plus = w.rng.randint(0, 20), w.rng.choice([0, 15, 30, 45]), w.rng.randint(1, 3)
    clock, later = f"{hour}:{minute:02d}", f"{hour + plus}:{minute:02d}"
    return w.pick([f"It is {clock}. What time is it in {plus} hours?", f"What time is {plus} hours after {clock}?"]), f"It is {later}."


def echo(w):
    """What the user asks to be said, and counting."""
    if w.chance(0.2):
        most = w.rng.randint(2, 12)
        return w.pick(["Count to {}", "Count to {}.", "Count from 1 to {}.", "Please count to {}."]).format(most), ", ".join(str(i) for i in range(1, most + 1)) + "."
    words = w.pick(["this is a test", "hello", "hello world", "good morning", "I am here", "it works", "the test is over", "all is well", "yes", "no", "{}", "{} is here", "my name is {}", "hello {}", "I like {}", "the code is {}"])
    words = words.format(w.name())
    said = words[0].upper() + words[1:]
    ask = w.pick(["Say {}", "Say {}.", "Please say {}.", 'Say "{}"', 'Repeat "{}"', "Repeat: {}", "Repeat after me: {}", "Can you say {}?", 'Write "{}"'])
    return ask.format(words), said + "."


def nonsense(w):
    """Requests out of this world, and what is said to them."""
    form = w.rng.random()
    if form < 0.4:
        return " ".join(w.word() for _ in range(w.rng.randint(1, 5))) + w.pick(["", "?", ".", "!"]), facts.LOST
    openers = ("Once upon a time", "The best thing about", "I think that", "Yesterday I saw", "In my opinion", "Did you know that", "My friend", "The other day", "If I were", "Translate", "Summarize", "Compare", "Imagine", "Rewrite", "List all", "Draw")
    tail = " ".join(w.pick([w.word(), w.name(), "the", "a", "big", "old", "house", "city", "people", "with", "and", "of", "my", "work", "food"]) for _ in range(w.rng.randint(0, 6)))
    return (w.pick(openers) + " " + tail).strip() + w.pick(["", ".", "?", "..."]), facts.LOST


MISSING = (
    ("What time is it?;What is the time?;Tell me the time.;What is the time in {}?;What time is it in {}?;How late is it?", "I have no clock. Offer me a time tool."),
    ("What is the date today?;Which day is it?;What day is today?", "I have no calendar. Offer me a date tool."),
    ("What is the weather in {}?;How is the weather?;Will it rain today?;How is the weather in {}?", "I cannot see the weather. Offer me a weather tool."),
    ("Send a mail to {}.;Write a message to {}.;Call {}.", "I cannot send messages. Offer me a tool for that."),
    ("What is the phone number of {}?;What is the email of {}?;Where does {} live?", "I do not know that. Offer me a contact tool."),
    ("Search the web for {}.;Search for {}.;Google {}.", "I cannot search the web. Offer me a search tool."),
    ("Read the file {}.txt.;Open the file {}.txt.", "I cannot read files. Offer me a file tool."),
)


def missing_tool(w, tools):
    """A request for which no tool is offered."""
    kinds = ((Clock,), (Clock, Event), (Weather,), (Message,), (Contact,), (Search,), (Files,))
    open_cases = [case for case, kind in zip(MISSING, kinds) if not has(tools, *kind)]
    asks, answer = w.pick(open_cases)
    return w.pick(asks.split(";")).format(w.name()), answer


FIELDS = (
    ("name", "string"), ("age", "integer"), ("city", "string"), ("email", "string"), ("price", "number"), ("color", "string"), ("member", "boolean"), ("weight", "number"), ("date", "string"), ("id", "string"), ("quantity", "integer"), ("tags", "list"),
)
SENTENCES = {
    "name": "{n} is called {v}", "age": "{n} is {v} years old", "city": "{n} lives in {v}", "email": "the email is {v}", "price": "the price is {v}", "color": "the color is {v}", "member": "{n} is {v} member", "weight": "{n} weighs {v}",
    "date": "the date is {v}", "id": "the id is {v}", "quantity": "there are {v} pieces", "tags": "the tags are {v}",
}


def json_value(w, key, kind):
    if kind == "string":
        make = {"name": w.person, "city": w.city, "email": lambda: f"{w.word()}@{w.word()}.com", "date": w.date, "id": w.identifier, "color": lambda: w.pick("red blue green yellow black white".split())}.get(key, w.name)
        value = make()
        return value, value
    if kind == "integer":
        value = w.integer(1, 4)
        return value, str(value)
    if kind == "number":
        value = w.decimal()
        value = int(value) if value == int(value) else value
        return value, str(value)
    if kind == "boolean":
        value = w.chance(0.5)
        return value, "a" if value else "not a"
    values = [w.word() for _ in range(w.rng.randint(1, 3))]
    return values, " and ".join(values) if len(values) < 3 else f"{values[0]}, {values[1]} and {values[2]}"


def json_shape(w):
    """(system or None, request, answer): facts in a sentence, to be put into JSON of a given shape."""
    fields = w.sample(FIELDS, w.rng.randint(2, 4))
    if w.chance(0.4):
        fields = fields + [(w.word(), w.pick(["string", "integer", "number"]))]
    subject = w.pick(["It", "The person", "The item", w.name()])
    value_of, said = {}, []
    for key, kind in fields:
        value, text = json_value(w, key, kind)
        value_of[key] = value
        said.append(SENTENCES.get(key, "the " + key + " is {v}").format(n=subject, v=text))
    said = w.shuffled(said) if w.chance(0.4) else said
    told = ". ".join(s[0].upper() + s[1:] for s in said) + "."
    if w.chance(0.5):
        properties = {key: {"type": "array", "items": {"type": "string"}} if kind == "list" else {"type": kind} for key, kind in fields}
        shape = json.dumps({"type": "object", "properties": properties, "required": list(properties)})
        intro = w.pick(["Answer as JSON with this schema: ", "Reply with JSON that follows this schema: ", "Use this JSON schema: "]) + shape
    elif w.chance(0.5):
        shape = json.dumps({key: kind if kind != "list" else ["string"] for key, kind in fields})
        intro = w.pick(["Answer as JSON of this shape: ", "Fill in this JSON: ", "Reply in this form: "]) + shape
    else:
        intro = w.pick(["Answer as JSON with the keys ", "Give me JSON with the keys ", "Make a JSON object with "]) + ", ".join(key for key, _ in fields)
    answer = json.dumps(value_of, ensure_ascii=False)
    form = w.rng.random()
    if form < 0.3:
        return intro, told, answer
    return None, (f"{intro}\n{told}" if form < 0.7 else f"{told}\n{intro}"), answer


def two_steps(w):
    """Two tools in sequence: the second call needs what the first returned. Gives (tools, task)."""
    form = w.rng.random()
    if form < 0.35:
        contact, other = Contact(w), Weather(w) if w.chance(0.6) else Clock(w)
        while isinstance(other, Clock) and not other.key:
            other = Clock(w)
        person, city = w.person(), w.city()
        first = (contact.name, {contact.key: person}, result_json(w, {"city": city} if w.chance(0.5) else {"name": person, "city": city}))
        if isinstance(other, Weather):
            degrees, sky = w.rng.randint(-20, 42), w.pick(other.skies)
            second = (other.name, {other.key: city}, result_json(w, {"temperature": degrees, "condition": sky}))
            ask = w.pick(["What is the weather where {} lives?", "How is the weather in the city of {}?", "Find out where {} lives and get the weather there."])
            answer, expect = f"In {city} it is {sky} with {degrees} degrees.", [str(degrees), sky]
        else:
            time = w.clock()
            second = (other.name, {other.key: city}, w.pick([time, result_json(w, {"time": time})]))
            ask = w.pick(["What time is it where {} lives?", "Find out where {} lives and tell me the time there."])
            answer, expect = f"It is {time} in {city}.", [time]
        return [contact, other], Task(ask.format(person), [[first], [second]], answer, expect, "two_steps")
    if form < 0.65:
        calc, units = Calculator(w), Units(w)
        a, b = w.integer(1, 4), w.integer(1, 4)
        op, said = w.pick([("+", "Add {a} and {b}"), ("*", "Multiply {a} by {b}"), ("+", "Calculate {a} + {b}"), ("*", "Calculate {a} * {b}")])
        value = a + b if op == "+" else a * b
        source, target = w.pick([("km", "miles"), ("kg", "pounds"), ("feet", "meters"), ("hours", "minutes"), ("miles", "km"), ("liters", "gallons")])
        out = show(w.decimal())
        ask = said.format(a=a, b=b) + w.pick([", then convert the result from {} to {}.", " and convert that from {} to {}."]).format(source, target)
        number = float(out) if "." in out else int(out)
        turns = [
            [(calc.name, {calc.key: f"{a} {op} {b}"}, w.pick([str(value), result_json(w, {"result": value})]))],
            [(units.name, {units.value: value, units.source: source, units.target: target}, w.pick([out, result_json(w, {"result": number})]))],
        ]
        return [calc, units], Task(ask, turns, f"{value} {source} is {out} {target}.", [out], "two_steps")
    reader = Record(w, writes=False)
    writer = Record(w, noun=w.word() if w.held_out else w.pick(NOUNS), attribute=reader.attribute, writes=True)
    while writer.name == reader.name:
        writer = Record(w, attribute=reader.attribute, writes=True)
    writer.numeric_value = reader.numeric_value
    properties = writer.schema["function"]["parameters"]["properties"]
    properties[writer.value_key]["type"] = "number" if reader.numeric_value else "string"
    subject, subject_text = reader.subject()
    goal, goal_text = writer.subject()
    value, text = reader.value()
    ask = w.pick(["Get the {a} of {n} {s} and set the {a} of {m} {g} to it.", "Set the {a} of {m} {g} to the {a} of {n} {s}.", "Read the {a} of {n} {s}, then give it to {m} {g}."])
    ask = ask.format(a=reader.attribute, n=reader.noun, s=subject_text, m=writer.noun, g=goal_text)
    turns = [
        [(reader.name, {reader.key: subject}, result_json(w, {reader.attribute: value}))],
        [(writer.name, {writer.key: goal, writer.value_key: value}, w.pick(["ok", "done", result_json(w, {"ok": True})]))],
    ]
    return [reader, writer], Task(ask, turns, f"Done: the {reader.attribute} of {writer.noun} {goal_text} is now {text}.", [text], "two_steps")


def parallel(w):
    """Two calls of one tool in one turn."""
    if w.chance(0.5):
        tool = Weather(w)
        a, b = w.city(), w.city()
        rows = [(w.rng.randint(-20, 42), w.pick(tool.skies)) for _ in range(2)]
        calls = [(tool.name, {tool.key: city}, result_json(w, {"temperature": row[0], "condition": row[1]})) for city, row in zip((a, b), rows)]
        ask = w.pick(["What is the weather in {} and in {}?", "How is the weather in {} and {}?", "Get the weather in {} and in {}."]).format(a, b)
        answer = " ".join(f"In {city} it is {row[1]} with {row[0]} degrees." for city, row in zip((a, b), rows))
        return [tool], Task(ask, [calls], answer, [rows[0][1], str(rows[1][0])], "parallel")
    tool = Clock(w)
    while not tool.key:
        tool = Clock(w)
    a, b, s, t = w.city(), w.city(), w.clock(), w.clock()
    calls = [(tool.name, {tool.key: city}, w.pick([time, result_json(w, {"time": time})])) for city, time in ((a, s), (b, t))]
    ask = w.pick(["What time is it in {} and in {}?", "Tell me the time in {} and {}."]).format(a, b)
    return [tool], Task(ask, [calls], f"It is {s} in {a}. It is {t} in {b}.", [s, t], "parallel")


ERRORS = ("not found", "timeout", "permission denied", "service unavailable", "unknown {}", "invalid {}", "no such {}", "network error", "rate limit reached", "internal error", "{} is missing")


def failed(w, task):
    """The same task with a tool that fails."""
    text = w.pick(ERRORS).format(w.pick([w.word(), "name", "city", "value", "id"]))
    result = w.pick([f"Error: {text}", result_json(w, {"error": text}), result_json(w, {"error": text}), f"error: {text}"])
    turns = [[(name, arguments, result) for name, arguments, _ in turn] for turn in task.turns]
    return Task(task.request, turns, f"The tool failed: {text}.", [text], "error")


def make_tool(w):
    form = w.rng.random()
    if form < 0.5:
        return w.rng.choices(COMMON, WEIGHTS)[0](w)
    return Record(w) if form < 0.8 else Invented(w)


def offer(w, needed, extra):
    """The schemas to offer: what is needed and `extra` others, in any order. Names differ, and everyday tools come once."""
    tools = list(needed)
    while len(tools) < len(needed) + extra:
        main = tools[0]
        if isinstance(main, Record) and w.chance(0.5):
            keep_noun = w.chance(0.5)
            other = Record(w, noun=main.noun if keep_noun else None, attribute=None if keep_noun else main.attribute)
            if (other.noun, other.attribute, other.writes) == (main.noun, main.attribute, main.writes):
                continue
        else:
            other = make_tool(w)
        same_kind = any(type(other) is type(t) for t in tools) and isinstance(other, COMMON)
        both_compute = isinstance(other, (Binary, Calculator, Python)) and has(tools, Binary, Calculator, Python)
        if same_kind or both_compute or any(other.name == t.name for t in tools):
            continue
        tools.append(other)
    return w.shuffled(tools)


def single_tasks(w, tools):
    """Tasks that one of the offered tools solves without doubt which."""
    tool = w.pick(tools)
    for _ in range(8):
        if isinstance(tool, Record):
            twins = [t for t in tools if isinstance(t, Record) and t is not tool and t.noun == tool.noun and t.attribute == tool.attribute and t.writes == tool.writes]
            if twins:
                tool = w.pick(tools)
                continue
        break
    return tool.task()


def call_message(turn):
    calls = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments, _ in turn]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def append_task(messages, task):
    messages.append({"role": "user", "content": task.request})
    for turn in task.turns:
        messages.append(call_message(turn))
        messages.extend({"role": "tool", "content": result} for _, _, result in turn)
    messages.append({"role": "assistant", "content": task.answer})


def append_plain(messages, pair):
    messages.append({"role": "user", "content": pair[0]})
    messages.append({"role": "assistant", "content": pair[1]})


def has(tools, *kinds):
    return any(isinstance(t, kinds) for t in tools)


def plain_pair(w, tools):
    """A request without a tool's help that is right whatever is offered."""
    form = w.rng.random()
    if form < 0.25 and not has(tools, Calculator, Binary):
        return small_sum(w)
    if form < 0.3 and not has(tools, Clock, Calculator, Binary, Units):
        return small_time(w)
    if form < 0.38:
        return missing_tool(w, tools)
    if form < 0.44:
        return echo(w)
    if form < 0.49:
        return nonsense(w)
    return no_tool_text(w)


def dialogue(w, longest=4):
    """One training dialogue: (tools, messages)."""
    messages = []
    form = w.rng.random()
    if w.chance(0.35):
        messages.append({"role": "system", "content": system_message(w)})
    if form < 0.11:  # sums take many examples
        for _ in range(w.rng.randint(5, 12)):
            append_plain(messages, small_sum(w) if w.chance(0.85) else small_time(w))
        return [], messages
    if form < 0.31:
        for _ in range(w.rng.randint(1, longest + 2)):
            append_plain(messages, plain_pair(w, []))
        return [], messages
    if form < 0.44:
        system, request, answer = json_shape(w)
        messages = [{"role": "system", "content": system}] if system else messages
        append_plain(messages, (request, answer))
        while w.chance(0.5) and not system:
            append_plain(messages, json_shape_without_system(w) if w.chance(0.7) else plain_pair(w, []))
        return [], messages
    if form < 0.56:
        needed, task = (two_steps if w.chance(0.75) else parallel)(w)
        tools = offer(w, needed, w.pick([0, 0, 1, 2]))
        append_task(messages, task)
    else:
        tools = offer(w, [make_tool(w)], w.pick([0, 0, 1, 1, 2, 3]))
        append_task(messages, maybe_failed(w, single_tasks(w, tools)))
    while w.chance(0.62) and len(messages) < 4 * longest:
        if w.chance(0.2):
            append_plain(messages, plain_pair(w, tools))
        else:
            append_task(messages, maybe_failed(w, single_tasks(w, tools)))
    if w.chance(0.12):
        at = 1 if messages[0]["role"] == "system" else 0
        pair = plain_pair(w, tools)
        messages[at:at] = [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return [t.schema for t in tools], messages


def json_shape_without_system(w):
    while True:
        system, request, answer = json_shape(w)
        if not system:
            return request, answer


def maybe_failed(w, task):
    return failed(w, task) if w.chance(0.07) else task


def evaluation_item(w, index):
    """One request of the evaluation set, by kind in turn: everyday tools, records, invented tools, two steps, parallel, errors."""
    kind = index % 20
    if kind < 9:
        tool = w.rng.choices(COMMON, WEIGHTS)[0](w)
        tools = offer(w, [tool], w.pick([0, 1, 2, 3]))
        task = tool.task()
    elif kind < 15:
        tool = Record(w) if kind < 12 else Invented(w)
        tools = offer(w, [tool], w.pick([0, 1, 2, 3]))
        if isinstance(tool, Record) and any(isinstance(t, Record) and t is not tool and (t.noun, t.attribute, t.writes) == (tool.noun, tool.attribute, tool.writes) for t in tools):
            return evaluation_item(w, index)
        task = tool.task()
    elif kind < 18:
        needed, task = two_steps(w)
        tools = offer(w, needed, w.pick([0, 1]))
    elif kind == 18:
        needed, task = parallel(w)
        tools = offer(w, needed, w.pick([0, 1]))
    else:
        tool = make_tool(w)
        tools = offer(w, [tool], 1)
        task = failed(w, tool.task())
    messages = [{"role": "system", "content": system_message(w)}] if w.chance(0.35) else []
    messages.append({"role": "user", "content": task.request})
    return {
        "id": index, "kind": task.kind, "tools": [t.schema for t in tools], "messages": messages,
        "turns": [[{"name": n, "arguments": a, "result": r} for n, a, r in turn] for turn in task.turns], "answer": task.answer, "expect": task.expect,
    }
