package main

import (
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Users, roles and what they may do. The library stores permissions; here they
// are asked before every call. See privileges.go for which call needs what.

func init() {
	handlers["AuthorizationManager.AddAuthorizationRole"] = addRole
	handlers["AuthorizationManager.SetEntityPermissions"] = setEntityPermissions
	handlers["AuthorizationManager.HasPrivilegeOnEntities"] = hasPrivilegeOnEntities
	handlers["AuthorizationManager.HasUserPrivilegeOnEntities"] = hasUserPrivilegeOnEntities
	handlers["AuthorizationManager.FetchUserPrivilegeOnEntities"] = fetchUserPrivilegeOnEntities
}

func authorization() *simulator.AuthorizationManager {
	content := simulator.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content
	return simulator.Map.Get(*content.AuthorizationManager).(*simulator.AuthorizationManager)
}

func (l *Lab) rootFolder() types.ManagedObjectReference {
	return simulator.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content.RootFolder
}

// preparePermissions makes the lab's user an administrator and lists all privileges.
func (l *Lab) preparePermissions() {
	m := authorization()
	root := l.rootFolder()
	admin := object.AuthorizationRoleList(m.RoleList).ByName("Admin")
	m.SetEntityPermissions(&types.SetEntityPermissions{This: m.Self, Entity: root, Permission: []types.Permission{
		{Entity: &root, Principal: l.user, RoleId: admin.RoleId, Propagate: true}}})
	for _, id := range admin.Privilege {
		group, name := "", id
		if i := strings.LastIndex(id, "."); i >= 0 {
			group, name = id[:i], id[i+1:]
		}
		m.PrivilegeList = append(m.PrivilegeList, types.AuthorizationPrivilege{PrivId: id, Name: name, PrivGroupName: group})
	}
	// The library's first role has number 0, which no real role has.
	first := m.AddAuthorizationRole(&types.AddAuthorizationRole{This: m.Self, Name: "first"}).(*methods.AddAuthorizationRoleBody)
	m.RemoveAuthorizationRole(&types.RemoveAuthorizationRole{This: m.Self, RoleId: first.Res.Returnval})
}

// privileges of a user on an entity: of the nearest entity upwards with a
// permission for him. The caller holds the world.
func privileges(user string, entity types.ManagedObjectReference) map[string]bool {
	m := authorization()
	for at, own := entity, true; ; own = false {
		answer := m.RetrieveEntityPermissions(&types.RetrieveEntityPermissions{This: m.Self, Entity: at})
		for _, p := range answer.(*methods.RetrieveEntityPermissionsBody).Res.Returnval {
			if p.Principal == user && !p.Group && (own || p.Propagate) {
				return rolePrivileges(m, p.RoleId)
			}
		}
		e, ok := simulator.Map.Get(at).(mo.Entity)
		if !ok || e.Entity().Parent == nil {
			return nil
		}
		at = *e.Entity().Parent
	}
}

func rolePrivileges(m *simulator.AuthorizationManager, id int32) map[string]bool {
	granted := map[string]bool{}
	for _, role := range m.RoleList {
		if role.RoleId == id {
			for _, p := range role.Privilege {
				granted[p] = true
			}
		}
	}
	return granted
}

// checkPrivileges refuses a call that its user lacks a privilege for; the caller holds the world.
func (l *Lab) checkPrivileges(c *call) types.BaseMethodFault {
	if c.session == nil || c.session.UserName == l.user || c.session == l.system {
		return nil
	}
	for _, need := range needs(c) {
		if _, ok := simulator.Map.Get(need.entity).(mo.Entity); !ok {
			continue
		}
		if !privileges(c.session.UserName, need.entity)[need.privilege] {
			return &types.NoPermission{Object: need.entity, PrivilegeId: need.privilege}
		}
	}
	return nil
}

// mayUse says whether a user has a privilege on a datastore: for its HTTP access.
func (l *Lab) mayUse(user, privilege string, ds *simulator.Datastore) bool {
	l.world.RLock()
	defer l.world.RUnlock()
	return user == l.user || privileges(user, ds.Self)[privilege]
}

func addRole(c *call) (interface{}, types.BaseMethodFault) {
	if _, fault := c.lab.library(c); fault != nil {
		return nil, fault
	}
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	return object.AuthorizationRoleList(authorization().RoleList).ByName(c.method.Body.(*types.AddAuthorizationRole).Name).RoleId, nil
}

// setEntityPermissions adds to an entity's permissions, or changes those of the
// same user; the library's forgets all others.
func setEntityPermissions(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.SetEntityPermissions)
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	m := authorization()
	answer := m.RetrieveEntityPermissions(&types.RetrieveEntityPermissions{This: m.Self, Entity: r.Entity})
	merged := append([]types.Permission(nil), r.Permission...)
	for i := range merged {
		merged[i].Entity = &r.Entity
	}
	for _, old := range answer.(*methods.RetrieveEntityPermissionsBody).Res.Returnval {
		kept := true
		for _, p := range r.Permission {
			kept = kept && (p.Principal != old.Principal || p.Group != old.Group)
		}
		if kept {
			merged = append(merged, old)
		}
	}
	_, fault := c.lab.invoke(c.with(m.Self, "SetEntityPermissions",
		&types.SetEntityPermissions{This: m.Self, Entity: r.Entity, Permission: merged}))
	return nil, fault
}

func entityPrivileges(user string, entities []types.ManagedObjectReference, ids []string) []types.EntityPrivilege {
	var all []types.EntityPrivilege
	for _, entity := range entities {
		granted := privileges(user, entity)
		one := types.EntityPrivilege{Entity: entity}
		for _, id := range ids {
			one.PrivAvailability = append(one.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: granted[id]})
		}
		all = append(all, one)
	}
	return all
}

func hasPrivilegeOnEntities(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.HasPrivilegeOnEntities)
	c.lab.sessions.mu.Lock()
	asked := c.lab.sessions.live[r.SessionId]
	c.lab.sessions.mu.Unlock()
	if asked == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "sessionId"}
	}
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	return &types.HasPrivilegeOnEntitiesResponse{Returnval: entityPrivileges(asked.UserName, r.Entity, r.PrivId)}, nil
}

func hasUserPrivilegeOnEntities(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.HasUserPrivilegeOnEntities)
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	return &types.HasUserPrivilegeOnEntitiesResponse{Returnval: entityPrivileges(r.UserName, r.Entities, r.PrivId)}, nil
}

func fetchUserPrivilegeOnEntities(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.FetchUserPrivilegeOnEntities)
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	answer := &types.FetchUserPrivilegeOnEntitiesResponse{}
	for _, entity := range r.Entities {
		result := types.UserPrivilegeResult{Entity: entity}
		for privilege := range privileges(r.UserName, entity) {
			result.Privileges = append(result.Privileges, privilege)
		}
		answer.Returnval = append(answer.Returnval, result)
	}
	return answer, nil
}
