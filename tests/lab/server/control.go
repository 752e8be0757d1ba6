package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
)

// The control API: what a test does to the simulated world from outside, as
// JSON at /lab/ with the administrator's basic authentication.

type control func(l *Lab, r *http.Request, body []byte) (interface{}, error)

// controls by method and path; filled by init functions beside what they control.
var controls = map[string]control{}

func init() {
	controls["GET /lab/state"] = controlState
	controls["GET /lab/calls"] = controlCalls
	controls["GET /lab/faults"] = func(l *Lab, _ *http.Request, _ []byte) (interface{}, error) { return l.faults.list(), nil }
	controls["POST /lab/faults"] = controlAddFault
	controls["DELETE /lab/faults"] = controlRemoveFaults
	controls["POST /lab/users"] = controlAddUser
	controls["POST /lab/sessions"] = controlSessions
}

func (l *Lab) serveControl(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != l.user || !l.sessions.valid(user, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	action := controls[r.Method+" "+strings.TrimSuffix(r.URL.Path, "/")]
	if action == nil {
		http.Error(w, "no such control", http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	var value interface{}
	if err == nil {
		value, err = action(l, r, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// parse reads a control's JSON and refuses fields that it does not know.
func parse(body []byte, into interface{}) error {
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func controlState(l *Lab, _ *http.Request, _ []byte) (interface{}, error) {
	state := l.description()
	l.world.RLock()
	defer l.world.RUnlock()
	vms := []map[string]interface{}{}
	for _, e := range simulator.Map.All("VirtualMachine") {
		vm := e.(*simulator.VirtualMachine)
		entry := map[string]interface{}{"id": vm.Self.Value, "name": vm.Name, "power": vm.Runtime.PowerState, "pid": 0}
		if q := l.machines.get(vm.Self).process(); q != nil {
			entry["pid"] = q.pid
		}
		vms = append(vms, entry)
	}
	state["vms"] = vms
	return state, nil
}

func controlCalls(l *Lab, r *http.Request, _ []byte) (interface{}, error) {
	return l.calls.take(r.URL.Query().Get("reset") != ""), nil
}

func controlAddFault(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	rule := &faultRule{}
	if err := parse(body, rule); err != nil {
		return nil, err
	}
	return rule, l.faults.add(rule)
}

func controlRemoveFaults(l *Lab, r *http.Request, _ []byte) (interface{}, error) {
	id := 0
	if text := r.URL.Query().Get("id"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		id = n
	}
	l.faults.remove(id)
	return l.faults.list(), nil
}

func controlAddUser(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var user struct{ Name, Password string }
	if err := parse(body, &user); err != nil {
		return nil, err
	}
	if user.Name == "" || user.Password == "" {
		return nil, errors.New("a user has a name and a password")
	}
	l.sessions.addUser(user.Name, user.Password)
	return user, nil
}

// controlSessions ends sessions now, or sets how long they live without a call.
func controlSessions(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var order struct {
		Expire      bool   `json:"expire"`
		User        string `json:"user"`
		IdleSeconds *int   `json:"idle_seconds"`
	}
	if err := parse(body, &order); err != nil {
		return nil, err
	}
	if order.IdleSeconds != nil {
		l.sessions.mu.Lock()
		l.sessions.idle = time.Duration(*order.IdleSeconds) * time.Second
		l.sessions.mu.Unlock()
	}
	ended := 0
	if order.Expire {
		ended = l.sessions.expire(order.User)
	}
	return map[string]int{"ended": ended}, nil
}

// vmByName finds a VM by name or moref value for a control.
func vmByName(name string) (*simulator.VirtualMachine, error) {
	for _, e := range simulator.Map.All("VirtualMachine") {
		vm := e.(*simulator.VirtualMachine)
		if vm.Name == name || vm.Self.Value == name {
			return vm, nil
		}
	}
	return nil, fmt.Errorf("no VM %q", name)
}
