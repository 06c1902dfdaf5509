package local

import (
	"fmt"
	"syscall"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/pod"
)

// backend is what the sockets of the runtime may do.
type backend struct {
	r    *Runtime
	stop func()
}

func (b backend) Pods() []*pod.Pod { return b.r.manager.list() }

func (b backend) Rollouts() []admin.Rollout { return b.r.manager.rollouts() }

func (b backend) Find(namespace, name string) (*pod.Pod, error) {
	return b.r.manager.find(namespace, name)
}

func (b backend) RestartDeployment(namespace, name string) error {
	if namespace == "" {
		namespace = "default"
	}
	return b.r.manager.restartDeployment(key{namespace, name})
}

func (b backend) Stop() { b.stop() }

func (b backend) Log(namespace, name, container string) (*logs.Log, error) {
	if name == admin.PodControlPlane && b.r.plane != nil {
		return b.r.plane.log, nil
	}
	p, err := b.Find(namespace, name)
	if err != nil {
		return nil, err
	}
	return p.Log(container)
}

func (b backend) Signal(namespace, name, container string, sig syscall.Signal) error {
	if name == admin.PodControlPlane && namespace == "" {
		if b.r.plane == nil {
			return fmt.Errorf("the control plane is no process of its own here")
		}
		return b.r.plane.signal(sig)
	}
	p, err := b.Find(namespace, name)
	if err != nil {
		return err
	}
	return p.Signal(container, sig)
}
