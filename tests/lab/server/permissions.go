package main

import "github.com/vmware/govmomi/vim25/types"

func (l *Lab) preparePermissions() {}

func (l *Lab) checkPrivileges(c *call) types.BaseMethodFault { return nil }
