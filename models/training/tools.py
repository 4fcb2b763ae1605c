# SPDX-License-Identifier: Apache-2.0
"""Tools with everyday meanings: their schemas, requests that need them, right calls, plausible results and answers.

Each class is one tool as one dialogue sees it: names, parameter names and descriptions are drawn when it is made, so that the model
has to read the schema. `task()` makes one request with its calls and answer.
"""
import dataclasses
import json

from entities import show


@dataclasses.dataclass
class Task:
    request: str
    turns: list  # one list of (tool name, arguments, result text) per assistant turn that calls tools
    answer: str
    expect: list  # what the answer must contain
    kind: str = ""


def property_schema(kind, description="", enum=None):
    schema = {"type": kind}
    if description:
        schema["description"] = description
    if enum:
        schema["enum"] = enum
    return schema


def tool_schema(w, name, description, properties, required=None):
    """An OpenAI tool definition in one of the shapes that clients send."""
    required = list(properties) if required is None else required
    parameters = {"type": "object", "properties": properties}
    if required or w.chance(0.5):
        parameters["required"] = required
    if w.chance(0.06):
        parameters["additionalProperties"] = False
    function = {"name": name}
    if description and not w.chance(0.04):
        function["description"] = description
    function["parameters"] = parameters
    if w.chance(0.05):
        function = {key: function[key] for key in sorted(function)}
        parameters_sorted = {key: parameters[key] for key in sorted(parameters)}
        function["parameters"] = parameters_sorted
        return {"function": function, "type": "function"}
    if w.chance(0.04):
        function["strict"] = True
    return {"type": "function", "function": function}


def result_json(w, value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if w.chance(0.3) else None)


def polite(w, text):
    """The same request in another tone. `text` begins with a capital letter and has no closing mark."""
    lower = text[0].lower() + text[1:]
    form = w.rng.random()
    if form < 0.12:
        return f"Please {lower}."
    if form < 0.2:
        return f"Can you {lower}?"
    if form < 0.26:
        return f"Could you {lower}, please?"
    if form < 0.3:
        return f"Hey, {lower}."
    if form < 0.34:
        return f"I need you to {lower}."
    if form < 0.4:
        return lower
    return text + w.pick([".", "", ".", "!"]) if form < 0.9 else text + ", please."


def question(w, text):
    """A question in another tone. `text` begins with a capital letter and ends with a question mark."""
    lower = text[0].lower() + text[1:]
    form = w.rng.random()
    if form < 0.08:
        return lower[:-1]
    if form < 0.14:
        return "Hi! " + text
    if form < 0.2:
        return "Tell me: " + lower
    if form < 0.24:
        return "Quick question: " + lower
    if form < 0.27:
        return text[:-1] + ", please?"
    return text


class Tool:
    names = ()

    def __init__(self, w):
        self.w = w
        self.name = w.pick(self.names)
        if w.chance(0.06):
            self.name = w.pick([self.name + "_" + w.word(), w.word() + "_" + self.name])
        self.prepare()

    def prepare(self):
        raise NotImplementedError

    def param(self, *names):
        return self.w.pick(names)

    def describe(self, text):
        return text if self.w.chance(0.7) else ""

    def done(self, request, arguments, result, answer, expect, kind=None):
        return Task(request, [[(self.name, arguments, result)]], answer, expect, kind or type(self).__name__.lower())


OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


def tidy(value):
    """What a calculator prints."""
    if isinstance(value, float):
        value = round(value, 4)
        if value == int(value):
            value = int(value)
    return value


class Calculator(Tool):
    names = ("calculator", "calculate", "calc", "evaluate", "math", "compute", "evaluate_expression")

    def prepare(self):
        self.key = self.param("expression", "expression", "expr", "formula", "input")
        self.schema = tool_schema(
            self.w,
            self.name,
            self.w.pick(["Evaluate an arithmetic expression", "Calculate the value of an expression", "Do arithmetic", "A calculator"]),
            {self.key: property_schema("string", self.describe(self.w.pick(["The expression", "Expression, for example 2 + 3", "What to compute"])))},
        )

    def phrase(self):
        w = self.w
        a, b = w.number(), w.number()
        x, y = show(a), show(b)
        op = w.pick("+++---***//")
        form = w.rng.random()
        if form < 0.45:
            gap = "" if w.chance(0.25) else " "
            expression = f"{x}{gap}{op}{gap}{y}"
            if w.chance(0.2):
                third = w.integer(1, 3)
                expression = w.pick([f"({x} {op} {y}) * {third}", f"{x} {op} {y} + {third}", f"{third} * ({x} {op} {y})", f"{x} {op} {y} - {third}"])
            ask = w.pick(["What is {}?", "What is {}?", "How much is {}?", "Calculate {}", "Compute {}", "Work out {}", "Evaluate {}", "What does {} make?", "{}", "{} = ?", "Solve {}"])
            return ask.format(expression), expression
        if form < 0.72:
            word, op = w.pick([("plus", "+"), ("minus", "-"), ("times", "*"), ("divided by", "/"), ("multiplied by", "*")])
            ask = w.pick(["What is {}?", "How much is {}?", "Calculate {}", "Work out {}", "What do I get for {}?"])
            return ask.format(f"{x} {word} {y}"), f"{x} {op} {y}"
        if form < 0.8:
            return w.pick(["What is {} percent of {}?", "How much is {}% of {}?", "Calculate {} percent of {}"]).format(x, y), f"{y} * {x} / 100"
        return w.pick(
            [
                (f"Add {x} and {y}", f"{x} + {y}"),
                (f"Add {x} to {y}", f"{x} + {y}"),
                (f"What is the sum of {x} and {y}?", f"{x} + {y}"),
                (f"Subtract {y} from {x}", f"{x} - {y}"),
                (f"What is the difference between {x} and {y}?", f"{x} - {y}"),
                (f"Multiply {x} by {y}", f"{x} * {y}"),
                (f"What is the product of {x} and {y}?", f"{x} * {y}"),
                (f"Divide {x} by {y}", f"{x} / {y}"),
                (f"I buy {x} boxes at {y} dollars each. What do I pay?", f"{x} * {y}"),
                (f"I have {x} coins and give away {y}. How many are left?", f"{x} - {y}"),
                (f"I have {x} coins and find {y} more. How many do I have?", f"{x} + {y}"),
                (f"{x} people share {y} euros. How much does each get?", f"{y} / {x}"),
            ]
        )

    def task(self):
        w = self.w
        while True:
            request, expression = self.phrase()
            try:
                value = tidy(eval(expression))  # noqa: S307 - the expression is our own, of digits and operators
            except ZeroDivisionError:
                continue
            break
        text = show(value)
        form = w.rng.random()
        result = text if form < 0.4 else result_json(w, {w.pick(["result", "result", "value", "answer"]): value})
        answer = w.pick([f"The result is {text}.", f"The result is {text}.", f"That is {text}.", f"{expression} = {text}."])
        if request[0].isdigit() or request[0] == "(":
            styled = request
        else:
            styled = question(w, request) if request.endswith("?") else polite(w, request)
        return self.done(styled, {self.key: expression}, result, answer, [text])


class Binary(Tool):
    """add(a, b) and its like."""

    names = ("add", "sum", "multiply", "mul", "subtract", "divide", "add_numbers")
    words = {
        "+": ("Add two numbers", ["Add {x} and {y}", "What is {x} + {y}?", "What is {x} plus {y}?", "What is the sum of {x} and {y}?"]),
        "*": ("Multiply two numbers", ["Multiply {x} by {y}", "What is {x} * {y}?", "What is {x} times {y}?", "What is the product of {x} and {y}?"]),
        "-": ("Subtract the second number from the first", ["What is {x} - {y}?", "What is {x} minus {y}?", "Subtract {y} from {x}"]),
        "/": ("Divide the first number by the second", ["Divide {x} by {y}", "What is {x} / {y}?", "What is {x} divided by {y}?"]),
    }

    def prepare(self):
        w = self.w
        self.op = next(op for mark, op in (("mul", "*"), ("sub", "-"), ("div", "/"), ("", "+")) if mark in self.name)
        self.a, self.b = w.pick([("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")])
        self.kind = w.pick(["integer", "number"])
        properties = {self.a: property_schema(self.kind, self.describe("The first number")), self.b: property_schema(self.kind, self.describe("The second number"))}
        self.schema = tool_schema(w, self.name, self.words[self.op][0], properties)

    def task(self):
        w = self.w
        x, y = (w.integer(), w.integer()) if self.kind == "integer" else (w.number(), w.number())
        x, y = (int(v) if v == int(v) else v for v in (x, y))
        value = tidy(OPERATORS[self.op](x, y or 1))
        request = w.pick(self.words[self.op][1]).format(x=x, y=y or 1)
        request = question(w, request) if request.endswith("?") else polite(w, request)
        text = show(value)
        result = text if w.chance(0.5) else result_json(w, {"result": value})
        return self.done(request, {self.a: x, self.b: y or 1}, result, w.pick([f"The result is {text}.", f"That is {text}."]), [text])


class Clock(Tool):
    names = ("get_time", "get_current_time", "clock", "current_time", "time_in", "get_local_time")

    def prepare(self):
        w = self.w
        self.key = self.param("city", "timezone", "location", "place", "city", None, None)
        properties = {}
        if self.key:
            properties[self.key] = property_schema("string", self.describe(f"The {self.key}"))
        self.schema = tool_schema(
            w, self.name, w.pick(["Get the current time", "Tell what time it is", "Current local time"]) + (f" in a {self.key}" if self.key else ""), properties
        )

    def task(self):
        w = self.w
        time = w.clock()
        if not self.key:
            request = question(w, w.pick(["What time is it?", "What time is it now?", "What is the time?", "Do you know what time it is?", "How late is it?"]))
            if w.chance(0.15):
                request = polite(w, "Tell me the time")
            result = w.pick([time, result_json(w, {"time": time}), result_json(w, {"time": time, "zone": "UTC"})])
            return self.done(request, {}, result, f"It is {time}.", [time])
        city = w.city()
        if self.key == "timezone" and w.chance(0.6):
            city = w.pick(["UTC", "CET", "EST", "PST", "GMT", "Europe/", "Asia/", "America/"])
            city = city + w.name() if city.endswith("/") else city
        request = question(w, w.pick(["What time is it in {}?", "What time is it in {} now?", "What is the time in {}?", "What is the local time in {}?", "How late is it in {}?", "What's the time in {}?", "What time is it in {} right now?"]).format(city))
        if w.chance(0.2):
            request = polite(w, w.pick(["Tell me the time in {}", "Get the current time in {}", "Check the time in {}"]).format(city))
        result = w.pick([time, result_json(w, {"time": time}), result_json(w, {self.key: city, "time": time})])
        return self.done(request, {self.key: city}, result, f"It is {time} in {city}.", [time])


UNITS = {
    "length": {"km": 1000.0, "m": 1.0, "cm": 0.01, "miles": 1609.344, "feet": 0.3048, "inches": 0.0254, "meters": 1.0, "kilometers": 1000.0, "yards": 0.9144},
    "mass": {"kg": 1.0, "g": 0.001, "pounds": 0.45359237, "ounces": 0.028349523, "grams": 0.001, "tons": 1000.0, "kilograms": 1.0},
    "volume": {"liters": 1.0, "ml": 0.001, "gallons": 3.785411784, "cups": 0.2365882},
    "time": {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0, "weeks": 604800.0},
    "data": {"MB": 1.0, "GB": 1000.0, "TB": 1000000.0, "KB": 0.001},
}


class Units(Tool):
    names = ("convert_units", "convert", "unit_converter", "convert_unit", "units")

    def prepare(self):
        w = self.w
        self.value, self.source, self.target = w.pick(
            [("value", "from_unit", "to_unit"), ("value", "from_unit", "to_unit"), ("value", "from", "to"), ("amount", "source", "target"), ("amount", "from_unit", "to_unit"), ("number", "unit", "target_unit")]
        )
        properties = {
            self.value: property_schema("number", self.describe("The amount")),
            self.source: property_schema("string", self.describe("The unit it is in")),
            self.target: property_schema("string", self.describe("The unit wanted")),
        }
        self.schema = tool_schema(w, self.name, w.pick(["Convert a value between units", "Convert units of measurement", "Unit conversion"]), properties)

    def task(self):
        w = self.w
        table = UNITS[w.pick(list(UNITS))]
        source, target = w.sample(list(table), 2)
        value = w.number()
        text = show(value)
        value = int(value) if float(value) == int(value) else value
        ask = w.pick(
            ["Convert {0} {1} to {2}", "Convert {0} {1} to {2}", "Convert {0} {1} into {2}", "What is {0} {1} in {2}?", "How many {2} are {0} {1}?", "How much is {0} {1} in {2}?", "Turn {0} {1} into {2}", "{0} {1} in {2}"]
        )
        request = ask.format(text, source, target)
        if request[0].isalpha():
            request = question(w, request) if request.endswith("?") else polite(w, request)
        out = value * table[source] / table[target]
        out = show(round(out, 2 if out > 1 else 4))
        number = float(out) if "." in out else int(out)
        result = w.pick([out, f"{out} {target}", result_json(w, {"result": number}), result_json(w, {"value": number, "unit": target})])
        answer = f"{text} {source} is {out} {target}."
        return self.done(request, {self.value: value, self.source: source, self.target: target}, result, answer, [out])


class Weather(Tool):
    names = ("get_weather", "weather", "current_weather", "get_current_weather", "weather_report")
    skies = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy", "hazy", "dry")

    def prepare(self):
        w = self.w
        self.key = self.param("city", "city", "location", "place", "town")
        properties = {self.key: property_schema("string", self.describe(w.pick(["The city", "City name", "Where", "The place"])))}
        self.unit = w.chance(0.3)
        if self.unit:
            properties["unit"] = property_schema("string", "", ["celsius", "fahrenheit"])
        required = [self.key]
        self.schema = tool_schema(w, self.name, w.pick(["Get the weather of a city", "Current weather", "Get the current weather in a place"]), properties, required)

    def task(self):
        w = self.w
        city = w.city()
        ask = w.pick(
            ["What is the weather in {}?", "How is the weather in {}?", "What is the weather like in {}?", "Get the weather in {}", "How warm is it in {}?", "Is it cold in {}?", "Check the weather in {}", "Weather in {}", "Tell me the weather in {}", "Does it rain in {}?", "What's the weather in {}?", "What's the weather like in {}?"]
        )
        arguments = {self.key: city}
        if w.chance(0.1):
            city = f"{city}, {w.name()}"
        request = ask.format(city)
        if w.chance(0.15):
            when = w.pick(["today", "now", "right now", "at the moment"])
            request = request[:-1] + f" {when}?" if request.endswith("?") else f"{request} {when}"
        if self.unit and w.chance(0.5):
            unit = w.pick(["celsius", "fahrenheit"])
            arguments["unit"] = unit
            request = request.rstrip("?") + f" in {unit}" + ("?" if request.endswith("?") else "")
        request = question(w, request) if request.endswith("?") else polite(w, request)
        degrees, sky = w.rng.randint(-20, 42), w.pick(self.skies)
        names = w.pick([("temperature", "condition"), ("temperature", "sky"), ("temp", "conditions"), ("degrees", "weather")])
        body = {names[0]: degrees, names[1]: sky}
        if w.chance(0.3):
            body = {self.key: city, **body}
        elif w.chance(0.2):
            body["humidity"] = w.rng.randint(10, 99)
        result = result_json(w, body) if w.chance(0.75) else w.pick([f"{sky}, {degrees} degrees", f"{degrees} degrees and {sky}"])
        return self.done(request, arguments, result, f"In {city} it is {sky} with {degrees} degrees.", [str(degrees), sky])


class Contact(Tool):
    names = ("lookup", "lookup_contact", "find_contact", "contacts", "get_contact", "address_book", "search_contacts")

    def prepare(self):
        w = self.w
        self.key = self.param("name", "name", "person", "full_name", "query")
        self.schema = tool_schema(
            w, self.name, w.pick(["Look up a contact by name", "Find a person in the address book", "Get phone, email and city of a person"]), {self.key: property_schema("string", self.describe("The name of the person"))}
        )

    def record(self, person):
        w = self.w
        fields = {
            "phone": "-".join([str(w.rng.randint(100, 999)), str(w.integer(4, 4))]),
            "email": f"{person.split()[0].lower()}@{w.word()}.{w.pick(['com', 'org', 'net'])}",
            "city": w.city(),
            "birthday": w.date(),
        }
        chosen = w.sample(list(fields), w.rng.randint(1, 4))
        return {key: fields[key] for key in chosen}

    def task(self):
        w = self.w
        person = w.person()
        record = self.record(person)
        field = w.pick(list(record))
        label = {"phone": w.pick(["phone number", "phone", "number"]), "email": w.pick(["email", "email address"]), "city": "city", "birthday": "birthday"}[field]
        ask = w.pick(["What is the {f} of {p}?", "What is {p}'s {f}?", "Find the {f} of {p}", "Look up {p}'s {f}", "I need the {f} of {p}", "Give me {p}'s {f}", "Get the {f} of {p}"])
        if field == "city" and w.chance(0.7):
            ask, label = "Where does {p} live?", "city"
        if field == "phone" and w.chance(0.2):
            ask = "How can I call {p}?"
        request = ask.format(f=label, p=person)
        request = question(w, request) if request.endswith("?") else polite(w, request) if not request.startswith("I ") else request + "."
        if w.chance(0.5):
            record = {"name": person, **record}
        noun = {"phone": "phone number", "email": "email address", "city": "city", "birthday": "birthday"}[field]
        answer = f"{person} lives in {record[field]}." if field == "city" else f"The {noun} of {person} is {record[field]}."
        return self.done(request, {self.key: person}, result_json(w, record), answer, [record[field]])


class Python(Tool):
    names = ("python", "run_python", "execute_python", "code_interpreter", "python")

    def prepare(self):
        self.key = self.param("code", "code", "source", "script")
        self.schema = tool_schema(self.w, self.name, self.w.pick(["Run Python code and return what it prints", "Execute Python", "Run a Python program"]), {self.key: property_schema("string", self.describe("The code to run"))})

    def task(self):
        w = self.w
        x, y = show(w.integer()), show(w.integer())
        word = w.word()
        numbers = [w.integer(1, 3) for _ in range(w.rng.randint(3, 5))]
        listed = ", ".join(map(str, numbers))
        op, said = w.pick([("+", "+"), ("*", "*"), ("-", "-"), ("+", "plus"), ("*", "times"), ("-", "minus")])
        prefix = w.pick(["Use Python to ", "With Python, ", "Run Python to ", "Write Python code and run it to ", "In Python, "])
        task, code, out = w.pick(
            [
                (f"compute {x} {said} {y}", f"print({x} {op} {y})", OPERATORS[op](int(x), int(y))),
                (f"print {x} {said} {y}", f"print({x} {op} {y})", OPERATORS[op](int(x), int(y))),
                (f"reverse the word {word}", f'print("{word}"[::-1])', word[::-1]),
                (f"count the letters of {word}", f'print(len("{word}"))', len(word)),
                (f"print {word} in upper case", f'print("{word}".upper())', word.upper()),
                (f"sort {listed}", f"print(sorted([{listed}]))", sorted(numbers)),
                (f"add up {listed}", f"print(sum([{listed}]))", sum(numbers)),
                (f"find the largest of {listed}", f"print(max([{listed}]))", max(numbers)),
                (f"find the smallest of {listed}", f"print(min([{listed}]))", min(numbers)),
            ]
        )
        out = str(out)
        result = w.pick([out, out, result_json(w, {"stdout": out}), result_json(w, {"output": out})])
        return self.done(prefix + task + w.pick([".", ""]), {self.key: code}, result, w.pick([f"Python printed {out}.", f"The result is {out}."]), [out])


class Search(Tool):
    names = ("search", "web_search", "search_web", "find_documents", "search_docs")
    topics = (
        "history of bridges;train timetable;best bread recipe;how to plant tomatoes;cheap flights;wind turbines;open source licences;river floods;music festivals;bicycle repair;solar panels;"
        "healthy breakfast;old maps;chess openings;cloud prices;museum hours;winter tires;coffee grinders;learning Spanish;mountain huts"
    ).split(";")

    def prepare(self):
        w = self.w
        self.key = self.param("query", "query", "q", "text", "search_term")
        self.schema = tool_schema(w, self.name, w.pick(["Search the web", "Search documents", "Find pages about a topic"]), {self.key: property_schema("string", self.describe("What to search for"))})

    def task(self):
        w = self.w
        topic = w.pick(self.topics) if w.chance(0.5) else w.pick(["{} in {}", "{} of {}", "{} {}"]).format(w.pick("hotels news people shops weather history maps prices museums parks jobs".split()), w.name())
        ask = w.pick(["Search the web for {}", "Search for {}", "Find pages about {}", 'Search for "{}"', "Look for {} on the web"])
        title = f"{w.name()} {w.pick(['guide', 'journal', 'report', 'notes', 'times'])}"
        result = result_json(w, w.pick([{"title": title}, [{"title": title}], {"results": [{"title": title}]}])) if w.chance(0.8) else title
        return self.done(polite(w, ask.format(topic)), {self.key: topic}, result, f"I found: {title}.", [title])


class Message(Tool):
    names = ("send_message", "send_email", "notify", "send_mail", "text_person")
    texts = (
        "dinner is ready;the meeting moved to noon;I am late;see you tomorrow;please call me back;the parcel arrived;happy birthday;the train is delayed;bring the keys;lunch at one;the report is done;thank you;"
        "the server is up again;let us start;I will come by bike"
    ).split(";")

    def prepare(self):
        w = self.w
        self.to, self.text = w.pick([("to", "text"), ("recipient", "message"), ("to", "body"), ("name", "text"), ("recipient", "text")])
        self.schema = tool_schema(
            w, self.name, w.pick(["Send a message to a person", "Send a text to someone"]), {self.to: property_schema("string", self.describe("Who gets it")), self.text: property_schema("string", self.describe("What to send"))}
        )

    def task(self):
        w = self.w
        person, text = w.person(), w.pick(self.texts)
        if w.chance(0.3):
            text = w.pick(["meet me in {}", "the code is {}", "I am in {}", "buy {} apples"]).format(w.name())
            text = text.replace("code is " + text.split()[-1], f"code is {w.integer(3, 5)}")
        ask = w.pick(['Send {p} the message "{t}"', 'Write to {p}: "{t}"', 'Tell {p} "{t}"', 'Send a message to {p} saying "{t}"', 'Send "{t}" to {p}'])
        result = w.pick(["sent", "ok", result_json(w, {"status": "sent"}), result_json(w, {"ok": True}), result_json(w, {"sent": True})])
        return self.done(ask.format(p=person, t=text) + w.pick(["", "."]), {self.to: person, self.text: text}, result, f"Done: the message to {person} was sent.", [person])


class Timer(Tool):
    names = ("set_timer", "timer", "start_timer", "countdown")

    def prepare(self):
        w = self.w
        self.unit = w.pick(["minutes", "seconds", "minutes"])
        self.key = self.param(self.unit, "duration", self.unit)
        self.schema = tool_schema(w, self.name, f"Start a timer of some {self.unit}", {self.key: property_schema("integer", self.describe(f"How many {self.unit}"))})

    def task(self):
        w = self.w
        amount = w.integer(1, 3)
        ask = w.pick(["Set a timer for {} {}", "Start a timer of {} {}", "Wake me in {} {}", "Set a {} {} timer", "Remind me in {} {}"])
        result = w.pick(["ok", "started", result_json(w, {"ok": True}), result_json(w, {"status": "started"})])
        unit = self.unit
        request = ask.format(amount, unit[:-1] if ask.startswith("Set a {}") else unit)
        return self.done(polite(w, request), {self.key: amount}, result, f"Done: the timer runs for {amount} {unit}.", [str(amount)])


class Event(Tool):
    names = ("create_event", "add_event", "calendar_add", "schedule_event")

    def prepare(self):
        w = self.w
        self.title = self.param("title", "name", "event")
        self.schema = tool_schema(
            w, self.name, w.pick(["Add an event to the calendar", "Create a calendar event"]),
            {self.title: property_schema("string", self.describe("What it is")), "date": property_schema("string", self.describe("The day, YYYY-MM-DD")), "time": property_schema("string", self.describe("The time, HH:MM"))},
        )

    def task(self):
        w = self.w
        title = w.pick("Meeting Lunch Dinner Review Concert Workout Call Interview Party Lesson Checkup".split()) + (f" with {w.name()}" if w.chance(0.5) else "")
        date, time = w.date(), w.clock()
        ask = w.pick(["Add {t} on {d} at {c} to my calendar", "Schedule {t} on {d} at {c}", 'Create the event "{t}" on {d} at {c}', "Put {t} in my calendar on {d} at {c}"])
        result = w.pick(["ok", "created", result_json(w, {"status": "created"}), result_json(w, {"ok": True})])
        return self.done(polite(w, ask.format(t=title, d=date, c=time)), {self.title: title, "date": date, "time": time}, result, f"Done: {title} is on {date} at {time}.", [date])


class Files(Tool):
    names = ("read_file", "open_file", "get_file", "cat_file")

    def prepare(self):
        w = self.w
        self.key = self.param("path", "path", "file", "filename")
        self.schema = tool_schema(w, self.name, w.pick(["Read a file", "Return the text of a file"]), {self.key: property_schema("string", self.describe("Path of the file"))})

    def task(self):
        w = self.w
        path = w.pick(["", "/tmp/", "docs/", "src/", "/etc/", "notes/"]) + w.word() + w.pick([".txt", ".md", ".json", ".log", ".csv", ".py"])
        text = w.pick(["the password is {}", "status: {}", "next stop {}", "owner: {}", "hello {}", "{} was here", "version {}"]).format(w.name())
        ask = w.pick(["Read the file {}", "What is in the file {}?", "What does {} say?", "Open {}", "Show me {}", "Read {}"])
        request = ask.format(path)
        request = request if request.endswith("?") else polite(w, request)
        return self.done(request, {self.key: path}, text, f"The file says: {text}", [text])


COMMON = (Calculator, Binary, Clock, Units, Weather, Contact, Python, Search, Message, Timer, Event, Files)
WEIGHTS = (6, 2, 3, 4, 3, 3, 2, 1, 1, 1, 1, 1)
