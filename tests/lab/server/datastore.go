package main

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// resolve turns "[datastore] path" into a host path inside that datastore.
func resolve(name string) (string, types.BaseMethodFault) {
	var p object.DatastorePath
	if !p.FromString(name) {
		return "", &types.InvalidDatastorePath{DatastorePath: name}
	}
	for _, ds := range allDatastores() {
		if ds.Name == p.Datastore {
			return filepath.Join(datastoreRoot(ds), path.Clean("/"+p.Path)), nil
		}
	}
	return "", &types.InvalidDatastore{Name: p.Datastore}
}

// datastorePath is the inverse of resolve; "" for a path in no datastore.
func datastorePath(file string) string {
	for _, ds := range allDatastores() {
		if root := datastoreRoot(ds) + "/"; strings.HasPrefix(file, root) {
			return "[" + ds.Name + "] " + strings.TrimPrefix(file, root)
		}
	}
	return ""
}

func datastoreOf(name string) *simulator.Datastore {
	var p object.DatastorePath
	if !p.FromString(name) {
		return nil
	}
	for _, ds := range allDatastores() {
		if ds.Name == p.Datastore {
			return ds
		}
	}
	return nil
}

// serveFolder is the datastores' HTTP access: a session's cookie, basic
// authentication or a service ticket, then GET, HEAD, ranges, PUT and DELETE.
func (l *Lab) serveFolder(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	if session := l.sessions.find(r); session != nil {
		user = session.UserName
	} else if holder := ticketUser(r); holder != "" {
		user = holder
	} else if !basic || !l.sessions.valid(user, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	file, fault := resolve("[" + r.URL.Query().Get("dsName") + "] " + strings.TrimPrefix(r.URL.Path, "/folder/"))
	if fault != nil {
		http.Error(w, faultText(fault), http.StatusNotFound)
		return
	}
	ds := datastoreOf(datastorePath(file))
	privilege := "Datastore.FileManagement"
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		privilege = "Datastore.Browse"
	}
	if ds == nil || !l.mayUse(user, privilege, ds) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		http.ServeFile(w, r, file)
	case http.MethodPut:
		if l.fullness.full(ds) {
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		l.putFile(w, r, file)
	case http.MethodDelete:
		if err := os.Remove(file); err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// putFile replaces a file whole: a broken upload leaves the old one.
func (l *Lab) putFile(w http.ResponseWriter, r *http.Request, file string) {
	if err := os.MkdirAll(filepath.Dir(file), 0700); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".upload-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.Remove(f.Name())
	_, err = f.ReadFrom(r.Body)
	if e := f.Close(); err == nil {
		err = e
	}
	status := http.StatusCreated
	if _, e := os.Stat(file); e == nil {
		status = http.StatusOK
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
}
