# SPDX-License-Identifier: Apache-2.0
"""Tools that exist in no training set twice: names and parameters are put together from real and invented words.

They make the model read the schema and copy from it, instead of remembering the usual tools.
"""
from tools import Task, polite, property_schema, question, result_json, tool_schema

NOUNS = (
    "order invoice ticket parcel account user sensor room machine book flight train device project server task lamp door plant car bike ship shop product song recipe table package job member student course "
    "warehouse robot pump valve contract customer folder printer camera engine badge locker container module batch"
).split()
ATTRIBUTES = (
    "status price owner size weight color location level balance speed length state priority rating score title type version address mode limit height width age rank label region quantity stock temperature pressure name"
).split()
STATES = "open closed ready delivered pending active broken free busy paused red blue green yellow black white high low medium north south small large old new full empty on off fast slow".split()
NUMERIC = {"price", "size", "weight", "level", "balance", "speed", "length", "rating", "score", "limit", "height", "width", "age", "rank", "quantity", "stock", "temperature", "pressure"}
READ_VERBS = ("get", "get", "fetch", "read", "show", "find", "query", "check")
WRITE_VERBS = ("set", "set", "update", "change", "write")


def camel(parts):
    return parts[0] + "".join(p.capitalize() for p in parts[1:])


class Record:
    """get_<noun>_<attribute>(id) or set_<noun>_<attribute>(id, value), with nouns and attributes that may be invented."""

    def __init__(self, w, noun=None, attribute=None, writes=None):
        self.w = w
        self.noun = noun or (w.pick(NOUNS) if not w.held_out and w.chance(0.5) or w.chance(0.2) else w.word())
        self.attribute = attribute or (w.pick(ATTRIBUTES) if w.chance(0.65) else w.word())
        self.writes = w.chance(0.3) if writes is None else writes
        self.numeric_value = self.attribute in NUMERIC or (self.attribute not in ATTRIBUTES and w.chance(0.4))
        verb = w.pick(WRITE_VERBS if self.writes else READ_VERBS)
        parts = [verb, self.noun, self.attribute]
        form = w.rng.random()
        if form < 0.15:
            self.name = camel(parts)
        elif form < 0.4:
            self.name = "_".join([w.word() for _ in range(w.rng.randint(1, 2))])
        elif form < 0.5:
            self.name = "_".join([self.noun, self.attribute] if not self.writes else [self.noun, verb, self.attribute])
        else:
            self.name = "_".join(parts)
        self.key = w.pick([f"{self.noun}_id", "id", "id", self.noun, f"{self.noun}_number", w.word()])
        self.value_key = w.pick(["value", self.attribute, f"new_{self.attribute}", "to"])
        if self.value_key == self.key:
            self.value_key = "value"
        self.numeric_id = w.chance(0.3)
        properties = {self.key: property_schema("integer" if self.numeric_id else "string", w.pick(["", "", f"The {self.noun}", f"Id of the {self.noun}"]))}
        if self.writes:
            properties[self.value_key] = property_schema("number" if self.numeric_value else "string", w.pick(["", "", f"The new {self.attribute}"]))
            description = w.pick([f"Set the {self.attribute} of a {self.noun}", f"Change the {self.attribute} of a {self.noun}"])
        else:
            description = w.pick([f"Get the {self.attribute} of a {self.noun}", f"Return the {self.attribute} of a {self.noun}", f"Look up the {self.attribute} of a {self.noun}"])
        self.schema = tool_schema(w, self.name, description, properties)

    def subject(self):
        w = self.w
        if self.numeric_id:
            value = w.integer(2, 6)
            return value, str(value)
        text = w.identifier() if w.chance(0.6) else w.name()
        return text, text

    def value(self):
        w = self.w
        if self.numeric_value:
            value = w.number()
            value = int(value) if value == int(value) else value
            return value, str(value)
        text = w.pick(STATES) if w.chance(0.5) else (w.name() if w.chance(0.5) else w.word())
        return text, text

    def task(self):
        w = self.w
        subject, subject_text = self.subject()
        value, value_text = self.value()
        what = f"the {self.attribute} of {self.noun} {subject_text}"
        if self.writes:
            ask = w.pick([f"Set {what} to {value_text}", f"Change {what} to {value_text}", f"Update {what} to {value_text}", f"Make {what} {value_text}"])
            result = w.pick(["ok", "done", result_json(w, {"ok": True}), result_json(w, {"status": "ok"}), result_json(w, {"success": True})])
            return Task(polite(w, ask), [[(self.name, {self.key: subject, self.value_key: value}, result)]], f"Done: {what} is now {value_text}.", [value_text], "record_write")
        if w.chance(0.5):
            request = question(w, w.pick([f"What is {what}?", f"What {self.attribute} does {self.noun} {subject_text} have?", f"Do you know {what}?"]))
        else:
            request = polite(w, w.pick([f"Get {what}", f"Tell me {what}", f"Find {what}", f"Look up {what}", f"Show me {what}", f"Check {what}"]))
        body = {self.attribute: value}
        if w.chance(0.3):
            body = {self.key: subject, **body}
        if w.chance(0.2):
            body[w.word()] = w.integer(1, 3)
        result = value_text if w.chance(0.3) else result_json(w, body)
        answer = f"{what[0].upper()}{what[1:]} is {value_text}."
        return Task(request, [[(self.name, {self.key: subject}, result)]], answer, [value_text], "record_read")


class Invented:
    """A tool with invented name and parameters that the user calls by name with named values."""

    def __init__(self, w):
        self.w = w
        self.name = "_".join(w.word() for _ in range(w.rng.randint(1, 2)))
        self.parameters = {}
        properties = {}
        for _ in range(w.rng.randint(1, 3)):
            key = w.word()
            kind = w.pick(["string", "string", "integer", "number", "boolean", "enum", "list"])
            self.parameters[key] = (kind, [w.word() for _ in range(3)])
            if kind == "enum":
                properties[key] = property_schema("string", "", self.parameters[key][1])
            elif kind == "list":
                properties[key] = {"type": "array", "items": {"type": "string"}}
            else:
                properties[key] = property_schema(kind)
        self.act = w.word()
        self.schema = tool_schema(w, self.name, w.pick([f"Do a {self.act}", f"Run the {self.act}", f"Start a {self.act}"]), properties)

    def value(self, kind, options):
        w = self.w
        if kind == "integer":
            value = w.integer()
            return value, str(value)
        if kind == "number":
            value = w.decimal()
            value = int(value) if value == int(value) else value
            return value, str(value)
        if kind == "boolean":
            value = w.chance(0.5)
            return value, w.pick(["true", "true", "on", "yes"]) if value else w.pick(["false", "false", "off", "no"])
        if kind == "enum":
            value = w.pick(options)
            return value, value
        if kind == "list":
            values = [w.name() for _ in range(w.rng.randint(2, 3))]
            return values, " and ".join([", ".join(values[:-1]), values[-1]])
        value = w.pick([w.name, w.word, w.identifier])()
        return value, value

    def task(self):
        w = self.w
        arguments, said = {}, []
        for key, (kind, options) in self.parameters.items():
            value, text = self.value(kind, options)
            arguments[key] = value
            said.append(w.pick(["{} {}", "{} = {}", "{} set to {}"]).format(key, text) if w.chance(0.3) else f"{key} {text}")
        if w.chance(0.3):
            said = w.shuffled(said)
        listed = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
        ask = w.pick([f"Use {self.name} with {listed}", f"Call {self.name} with {listed}", f"Run the {self.act} with {listed}", f"Do a {self.act} with {listed}", f"Start the {self.act} with {listed}"])
        value = w.pick([w.name(), w.identifier(), str(w.number()), w.pick(STATES)])
        key = w.pick(["result", "result", "status", w.word(), w.word()])
        plain = w.chance(0.35)
        result = value if plain else result_json(w, {key: value})
        return Task(polite(w, ask), [[(self.name, arguments, result)]], f"The {'result' if plain else key} is {value}.", [value], "invented")
