// SPDX-License-Identifier: Apache-2.0

// Renders a Helm chart's templates as `helm template` does, for tests on machines without helm: Go's text/template with
// sprig and the functions Helm adds.
//
//	render_chart CHART RELEASE NAMESPACE [VALUES.yaml...]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type tree = map[string]interface{}

// files is what templates see as .Files.
type files struct{ root string }

func (f files) Get(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(f.root, name))
	return string(text), err
}

func readYaml(path string) tree {
	text, err := os.ReadFile(path)
	check(err)
	out := tree{}
	check(yaml.Unmarshal(text, &out))
	return out
}

// merge lays `over` on `base`; null deletes, as in Helm.
func merge(base, over tree) tree {
	for key, value := range over {
		inner, isTree := value.(tree)
		below, hasTree := base[key].(tree)
		switch {
		case value == nil:
			delete(base, key)
		case isTree && hasTree:
			base[key] = merge(below, inner)
		default:
			base[key] = value
		}
	}
	return base
}

func toYaml(value interface{}) (string, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err := encoder.Encode(value)
	return strings.TrimSuffix(out.String(), "\n"), err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func functions(set *template.Template) template.FuncMap {
	out := sprig.TxtFuncMap()
	execute := func(t *template.Template, data interface{}) (string, error) {
		var text bytes.Buffer
		err := t.Execute(&text, data)
		return strings.ReplaceAll(text.String(), "<no value>", ""), err
	}
	out["include"] = func(name string, data interface{}) (string, error) {
		found := set.Lookup(name)
		if found == nil {
			return "", fmt.Errorf("no template %q", name)
		}
		return execute(found, data)
	}
	out["tpl"] = func(text string, data interface{}) (string, error) {
		parsed, err := template.Must(set.Clone()).New("tpl").Parse(text)
		if err != nil {
			return "", err
		}
		return execute(parsed, data)
	}
	out["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	out["toYaml"] = toYaml
	out["toJson"] = func(value interface{}) (string, error) {
		text, err := json.Marshal(value)
		return string(text), err
	}
	return out
}

func main() {
	if len(os.Args) < 4 {
		check(errors.New("usage: render_chart CHART RELEASE NAMESPACE [VALUES.yaml...]"))
	}
	root := os.Args[1]
	values := readYaml(filepath.Join(root, "values.yaml"))
	for _, path := range os.Args[4:] {
		values = merge(values, readYaml(path))
	}
	chart := tree{}
	for key, value := range readYaml(filepath.Join(root, "Chart.yaml")) {
		chart[strings.ToUpper(key[:1])+key[1:]] = value
	}
	data := tree{
		"Values":  values,
		"Chart":   chart,
		"Release": tree{"Name": os.Args[2], "Namespace": os.Args[3], "Service": "Helm", "IsInstall": true, "IsUpgrade": false, "Revision": 1},
		"Files":   files{root},
	}
	set := template.New("chart").Option("missingkey=zero")
	set.Funcs(functions(set))
	paths, err := filepath.Glob(filepath.Join(root, "templates", "*"))
	check(err)
	sort.Strings(paths)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		check(err)
		_, err = set.New(filepath.Base(path)).Parse(string(text))
		check(err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		check(set.ExecuteTemplate(&out, name, data))
		if name == "NOTES.txt" {
			continue
		}
		fmt.Printf("---\n# Source: %s\n%s\n", name, strings.ReplaceAll(out.String(), "<no value>", ""))
	}
}
