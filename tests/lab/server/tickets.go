package main

import (
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

// serviceTickets open one URL for one HTTP call, without the session's cookie.
var serviceTickets sync.Map // ticket -> serviceTicket

type serviceTicket struct{ user, method, path string }

const ticketCookie = "vmware_cgi_ticket"

func acquireServiceTicket(c *call) (interface{}, types.BaseMethodFault) {
	spec, ok := c.method.Body.(*types.AcquireGenericServiceTicket).Spec.(*types.SessionManagerHttpServiceRequestSpec)
	if !ok {
		return nil, &types.InvalidArgument{InvalidProperty: "spec"}
	}
	u, err := url.Parse(spec.Url)
	if err != nil {
		return nil, &types.InvalidArgument{InvalidProperty: "spec.url"}
	}
	method := strings.ToUpper(strings.TrimPrefix(spec.Method, "http"))
	if method == "" {
		method = http.MethodGet
	}
	id := uuid.New().String()
	serviceTickets.Store(id, serviceTicket{c.session.UserName, method, u.Path})
	return types.SessionManagerGenericServiceTicket{Id: id, HostName: c.lab.server.URL.Host}, nil
}

// ticketUser is whose ticket a request carries, and uses it up; "" for none that fits.
func ticketUser(r *http.Request) string {
	cookie, err := r.Cookie(ticketCookie)
	if err != nil {
		return ""
	}
	found, ok := serviceTickets.LoadAndDelete(strings.Trim(cookie.Value, `"`))
	if t, _ := found.(serviceTicket); ok && t.method == r.Method && t.path == r.URL.Path {
		return t.user
	}
	return ""
}
