package main

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// Long answers come in pages, as large as the client wants and no larger than
// the server likes: whoever does not ask for the rest does not get it.

const largestPage = 500

func init() {
	handlers["PropertyCollector.RetrievePropertiesEx"] = retrievePropertiesEx
	handlers["PropertyCollector.ContinueRetrievePropertiesEx"] = continueRetrievePropertiesEx
	handlers["PropertyCollector.CancelRetrievePropertiesEx"] = func(c *call) (interface{}, types.BaseMethodFault) {
		pages.Delete(c.session.Key + c.method.Body.(*types.CancelRetrievePropertiesEx).Token)
		return nil, nil
	}
}

// page is what is left of an answer.
type page struct {
	objects []types.ObjectContent
	size    int
}

var (
	pages     sync.Map // session key + token -> page
	pageToken int64
)

func pageSize(wanted int32) int {
	if wanted > 0 && wanted < largestPage {
		return int(wanted)
	}
	return largestPage
}

func retrievePropertiesEx(c *call) (interface{}, types.BaseMethodFault) {
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	answer, fault := c.lab.invoke(c)
	if fault != nil {
		return nil, fault
	}
	result := answer.(*methods.RetrievePropertiesExBody).Res.Returnval
	if result == nil || c.session == nil {
		return &types.RetrievePropertiesExResponse{Returnval: result}, nil
	}
	size := pageSize(c.method.Body.(*types.RetrievePropertiesEx).Options.MaxObjects)
	return &types.RetrievePropertiesExResponse{Returnval: c.cut(result.Objects, size)}, nil
}

// cut takes one page and keeps the rest under a token.
func (c *call) cut(objects []types.ObjectContent, size int) *types.RetrieveResult {
	if len(objects) <= size {
		return &types.RetrieveResult{Objects: objects}
	}
	token := strconv.FormatInt(atomic.AddInt64(&pageToken, 1), 10)
	pages.Store(c.session.Key+token, page{objects[size:], size})
	return &types.RetrieveResult{Token: token, Objects: objects[:size]}
}

func continueRetrievePropertiesEx(c *call) (interface{}, types.BaseMethodFault) {
	rest, ok := pages.LoadAndDelete(c.session.Key + c.method.Body.(*types.ContinueRetrievePropertiesEx).Token)
	if !ok {
		return nil, &types.InvalidProperty{Name: "token"}
	}
	p := rest.(page)
	return &types.ContinueRetrievePropertiesExResponse{Returnval: *c.cut(p.objects, p.size)}, nil
}

// forgetPages drops what a session never asked for.
func forgetPages(key string) {
	pages.Range(func(k, _ interface{}) bool {
		if strings.HasPrefix(k.(string), key) {
			pages.Delete(k)
		}
		return true
	})
}

// truncate splits updates after so many objects.
func truncate(updates []types.PropertyFilterUpdate, size int) (first, rest []types.PropertyFilterUpdate) {
	for i, update := range updates {
		if len(update.ObjectSet) > size {
			head, tail := update, update
			head.ObjectSet, tail.ObjectSet = update.ObjectSet[:size], update.ObjectSet[size:]
			if size > 0 {
				first = append(first, head)
			}
			return first, append([]types.PropertyFilterUpdate{tail}, updates[i+1:]...)
		}
		size -= len(update.ObjectSet)
		first = append(first, update)
	}
	return first, nil
}
