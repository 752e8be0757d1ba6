package main

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

var serviceInstance = vim25.ServiceInstance

// session is a login: its cookie, its user, and the objects that live with it
// (views, collectors, filters).
type session struct {
	*simulator.Session
	used time.Time
}

func newSession(user string) *session {
	now := time.Now()
	return &session{used: now, Session: &simulator.Session{
		UserSession: types.UserSession{Key: uuid.New().String(), UserName: user, FullName: user, LoginTime: now,
			LastActiveTime: now, Locale: "en_US", MessageLocale: "en_US", ExtensionSession: types.NewBool(false)},
		Registry: simulator.NewRegistry(),
	}}
}

// sessions are ours and not the library's, so that they can expire, belong to
// users with fewer privileges, and open the datastores by HTTP.
type sessions struct {
	mu      sync.Mutex
	users   map[string]string
	live    map[string]*session
	tickets map[string]string // clone ticket -> user
	idle    time.Duration     // 0: sessions never end by themselves
	ended   func(key string)  // called for every session that is over
}

func init() {
	handlers["SessionManager.Login"] = login
	handlers["SessionManager.Logout"] = logout
	handlers["SessionManager.TerminateSession"] = terminateSession
	handlers["SessionManager.SessionIsActive"] = sessionIsActive
	handlers["SessionManager.AcquireCloneTicket"] = acquireCloneTicket
	handlers["SessionManager.CloneSession"] = cloneSession
	handlers["SessionManager.AcquireGenericServiceTicket"] = acquireServiceTicket
}

func (s *sessions) addUser(name, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users, s.live, s.tickets = map[string]string{}, map[string]*session{}, map[string]string{}
	}
	s.users[name] = password
}

func (s *sessions) valid(name, password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.users[name]
	return ok && known == password
}

// find is the session of a request's cookie, or nil.
func (s *sessions) find(r *http.Request) *session {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.live[strings.Trim(cookie.Value, `"`)]
	if found == nil {
		return nil
	}
	if s.idle > 0 && time.Since(found.used) > s.idle {
		s.end(found.Key)
		return nil
	}
	found.used = time.Now()
	return found
}

func (s *sessions) expire(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for key, live := range s.live {
		if user == "" || live.UserName == user {
			s.end(key)
			n++
		}
	}
	return n
}

// end forgets a session; the caller holds the lock.
func (s *sessions) end(key string) {
	delete(s.live, key)
	s.ended(key)
}

// begin makes a session and sets its cookie on the answer.
func (s *sessions) begin(c *call, user string) types.UserSession {
	made := newSession(user)
	made.IpAddress = strings.Split(c.request.RemoteAddr, ":")[0]
	made.UserAgent = c.request.UserAgent()
	s.mu.Lock()
	s.live[made.Key] = made
	s.mu.Unlock()
	cookie := http.Cookie{Name: soap.SessionCookieName, Value: made.Key, Path: "/", HttpOnly: true, Secure: true}
	c.cookies.Add("Set-Cookie", cookie.String())
	c.lab.world.Lock()
	c.lab.event(&types.UserLoginSessionEvent{SessionEvent: types.SessionEvent{Event: types.Event{UserName: user}},
		SessionId: made.Key, IpAddress: made.IpAddress, UserAgent: made.UserAgent, Locale: made.Locale})
	c.lab.world.Unlock()
	return made.UserSession
}

func login(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.Login)
	if !c.lab.sessions.valid(r.UserName, r.Password) {
		return nil, new(types.InvalidLogin)
	}
	return c.lab.sessions.begin(c, r.UserName), nil
}

func logout(c *call) (interface{}, types.BaseMethodFault) {
	s := &c.lab.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(c.session.Key)
	return nil, nil
}

func terminateSession(c *call) (interface{}, types.BaseMethodFault) {
	s := &c.lab.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range c.method.Body.(*types.TerminateSession).SessionId {
		if id == c.session.Key {
			return nil, new(types.InvalidArgument)
		}
		if s.live[id] == nil {
			return nil, new(types.NotFound)
		}
		s.end(id)
	}
	return nil, nil
}

func sessionIsActive(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.SessionIsActive)
	s := &c.lab.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.live[r.SessionID]
	return live != nil && live.UserName == r.UserName, nil
}

func acquireCloneTicket(c *call) (interface{}, types.BaseMethodFault) {
	s := &c.lab.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	ticket := "cst-" + uuid.New().String()
	s.tickets[ticket] = c.session.UserName
	return ticket, nil
}

func cloneSession(c *call) (interface{}, types.BaseMethodFault) {
	s := &c.lab.sessions
	s.mu.Lock()
	ticket := c.method.Body.(*types.CloneSession).CloneTicket
	user, ok := s.tickets[ticket]
	delete(s.tickets, ticket)
	s.mu.Unlock()
	if !ok {
		return nil, new(types.InvalidLogin)
	}
	return s.begin(c, user), nil
}
