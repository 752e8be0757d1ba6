package main

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const maxRequest = 16 << 20

// front stands before the library's HTTP handler and takes the API, datastore
// files and the lab's own control calls; the rest (REST tags, OVF uploads) passes.
type front struct {
	lab     *Lab
	library http.Handler
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/sdk" || path == "/sdk/vimService":
		f.lab.serveAPI(w, r)
	case strings.HasPrefix(path, "/folder/"):
		f.lab.serveFolder(w, r)
	case strings.HasPrefix(path, "/lab/"):
		f.lab.serveControl(w, r)
	default:
		f.library.ServeHTTP(w, r)
	}
}

// call is one API call on its way.
type call struct {
	lab     *Lab
	method  *simulator.Method
	session *session // nil before login
	request *http.Request
	cookies http.Header // set by login
	task    *task       // of an asynchronous one
}

// key names the method for tables: "VirtualMachine.PowerOnVM_Task".
func (c *call) key() string { return c.method.This.Type + "." + c.method.Name }

func (c *call) isTask() bool { return strings.HasSuffix(c.method.Name, "_Task") }

func (l *Lab) serveAPI(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	method, err := simulator.UnmarshalBody(decodeType, body)
	if err != nil {
		l.logf("undecodable call: %v", err)
		l.reply(w, &call{lab: l, method: &simulator.Method{}}, nil, new(types.InvalidRequest))
		return
	}
	c := &call{lab: l, method: method, request: r, cookies: w.Header()}
	c.session = l.sessions.find(r)
	l.calls.count(method.Name)
	rule := l.faults.take(c)
	if rule.dropBefore() {
		hangUp(w)
		return
	}
	if rule != nil && rule.Status != 0 {
		w.WriteHeader(rule.Status)
		return
	}
	if rule != nil && !c.isTask() {
		time.Sleep(rule.latency())
	}
	value, fault := l.answer(c, rule)
	if rule.dropAfter() {
		hangUp(w)
		return
	}
	l.reply(w, c, value, fault)
}

func (l *Lab) reply(w http.ResponseWriter, c *call, value interface{}, fault types.BaseMethodFault) {
	l.world.RLock() // values point into the inventory
	status, body, err := encode(c.method.Name, value, fault)
	l.world.RUnlock()
	if err != nil {
		l.logf("%s: encoding the answer: %v", c.key(), err)
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// hangUp closes the connection without an answer, as a dying network does.
func hangUp(w http.ResponseWriter) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		connection.Close()
	}
}
