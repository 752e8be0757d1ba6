package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// monitor is one QEMU's QMP connection.
type monitor struct {
	connection *net.UnixConn
	mu         sync.Mutex // one command at a time
	answers    chan qmpMessage
	waiting    sync.Mutex
	events     map[string]chan struct{} // "DEVICE_DELETED dev4000" -> closed when it came
	notify     func(event string, data json.RawMessage)
}

type qmpMessage struct {
	Return json.RawMessage
	Error  *struct{ Desc string }
	Event  string
	Data   json.RawMessage
}

const qmpTimeout = 60 * time.Second

func openMonitor(c *net.UnixConn, notify func(string, json.RawMessage)) *monitor {
	m := &monitor{connection: c, answers: make(chan qmpMessage, 1), events: map[string]chan struct{}{}, notify: notify}
	go m.read()
	return m
}

func (m *monitor) read() {
	defer close(m.answers)
	lines := bufio.NewReader(m.connection)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var message qmpMessage
		if json.Unmarshal(line, &message) != nil {
			continue
		}
		switch {
		case message.Event != "":
			m.seen(message)
		case message.Return != nil || message.Error != nil:
			m.answers <- message
		}
	}
}

func (m *monitor) seen(message qmpMessage) {
	var about struct{ Device string }
	_ = json.Unmarshal(message.Data, &about)
	m.waiting.Lock()
	name := message.Event + " " + about.Device
	if c := m.events[name]; c != nil {
		close(c)
		delete(m.events, name)
	}
	m.waiting.Unlock()
	m.notify(message.Event, message.Data)
}

// expect returns a channel that closes when the event comes.
func (m *monitor) expect(event, device string) <-chan struct{} {
	m.waiting.Lock()
	defer m.waiting.Unlock()
	c := make(chan struct{})
	m.events[event+" "+device] = c
	return c
}

type arguments map[string]interface{}

// run executes a command, passing a descriptor along if there is one.
func (m *monitor) run(command string, a arguments, files ...*os.File) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := map[string]interface{}{"execute": command}
	if a != nil {
		order["arguments"] = a
	}
	text, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	var rights []byte
	for _, f := range files {
		rights = syscall.UnixRights(int(f.Fd()))
	}
	if _, _, err := m.connection.WriteMsgUnix(append(text, '\n'), rights, nil); err != nil {
		return nil, err
	}
	select {
	case answer, ok := <-m.answers:
		if !ok {
			return nil, fmt.Errorf("qmp %s: QEMU is gone", command)
		}
		if answer.Error != nil {
			return nil, fmt.Errorf("qmp %s: %s", command, answer.Error.Desc)
		}
		return answer.Return, nil
	case <-time.After(qmpTimeout):
		m.connection.Close()
		return nil, fmt.Errorf("qmp %s: no answer", command)
	}
}
